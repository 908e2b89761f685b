"""Network files: layers, optimizer, history and random state in one archive, without pickle.

docs/files.md describes the format.  `archive` knows the bytes, this module says what is written,
`parsing` makes a network of what is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

import numpy as np

from dropwise._backends.protocol import Array
from dropwise._version import __version__
from dropwise.layers.base import Layer, is_registered, layers_within
from dropwise.network import archive, parsing
from dropwise.network.archive import File
from dropwise.network.history import Best, Epoch
from dropwise.network.parsing import DEEPEST, OPTIMIZERS, OPTIONAL
from dropwise.optimizers import Optimizer

FORMAT = 2  # 1: layers and their states only


class Savable(Protocol):
    """What a file holds of a network."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    epochs_done: int
    shuffle_key: int
    history: list[Epoch]
    notes: dict[str, Any]
    unfinished: Best | None

    def config(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def check_savable(network: Savable, optimizer: Optimizer | None = None) -> None:
    """Raise if a file cannot hold the network, or the optimizer."""
    for layer in (network, *layers_within(network)):
        if not isinstance(layer, Layer) or not is_registered(layer):
            raise TypeError(f"{layer!r} cannot be saved: only layers of dropwise can")
    if _depth(network) > DEEPEST:
        raise ValueError(f"the network cannot be saved: it is nested deeper than {DEEPEST} times")
    if optimizer is not None and OPTIMIZERS.get(type(optimizer).__name__) is not type(optimizer):
        raise TypeError(f"{optimizer!r} cannot be saved: only optimizers of dropwise can")
    if not isinstance(network.notes, dict):
        raise TypeError(f"notes must be a dict, got {network.notes!r}")
    try:
        archive.parse_json(json.dumps(network.notes, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"notes cannot be saved as JSON: {error}") from None


def _depth(network: Any) -> int:
    inner = [_depth(layer) for layer in getattr(network, "layers", ())]
    return 1 + max(inner, default=0)


# ---- saving ------------------------------------------------------------------------------------


def save(
    network: Savable, file: File, optimizer: Optimizer | None = None, best: Best | None = None
) -> None:
    """Write the network; with the optimizer, and with the state of a training that goes on."""
    check_savable(network, optimizer)
    header: dict[str, Any] = {
        "format": FORMAT,
        "dropwise": __version__,
        "network": network.config(),
        "notes": network.notes,
    }
    arrays: dict[str, Array] = {}
    header["state"] = _split("network", network.state_dict(), arrays)
    if optimizer is not None:
        header["optimizer"] = {"class": type(optimizer).__name__, "config": optimizer.config()}
        state = _split("optimizer", optimizer.state_dict(), arrays)
        header["optimizer"]["state"] = state
    for field in fields(Epoch):
        column = [getattr(epoch, field.name) for epoch in network.history]
        if field.name in OPTIONAL:
            known = np.array([value is not None for value in column], np.bool_)
            arrays[f"history.{field.name}.known"] = known
            column = [0.0 if value is None else value for value in column]
        arrays[f"history.{field.name}"] = np.array(column, np.float64)
    if best is not None:
        arrays["best.loss"] = np.array(best.loss)
        header["best"] = {"epoch": best.epoch, "arrays": len(best.parameters)}
        for i, parameters in enumerate(best.parameters):
            arrays[f"best.{i}"] = _storable(parameters)
    archive.write(file, header, arrays)


def _split(prefix: str, state: Mapping[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
    """The plain values of a state; its arrays go to `arrays`, as ``prefix.name``."""
    plain = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            arrays[f"{prefix}.{name}"] = _storable(value)
        else:
            plain[name] = value
    return plain


def _storable(array: Array) -> Array:
    """The array in a dtype that the format knows: float32 holds every bfloat16."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


# ---- loading -----------------------------------------------------------------------------------


def load(file: File) -> tuple[Savable, Optimizer | None]:
    """The network in a file, and the optimizer, if there is one."""
    header, arrays = archive.read(file)
    try:
        with np.errstate(all="ignore"):
            return parsing.parse(*_in_this_format(header, arrays))
    except MemoryError:
        raise
    except Exception as error:  # the checks of all layers, on values of any type
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise archive.bad_file(file, "does not hold a network of dropwise", reason) from error


def _in_this_format(
    header: dict[str, Any], arrays: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    version = header.get("format")
    if version == FORMAT and type(version) is int:
        return header, arrays
    if version == 1 and type(version) is int:
        return parsing.from_format_1(header, arrays)
    raise ValueError(
        f"it has format {version!r}; this release reads formats 1 to {FORMAT}: a newer dropwise "
        "may read it"
    )
