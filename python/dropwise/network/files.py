"""Network files: layers, optimizer, history and random state in one archive, without pickle.

docs/files.md describes the format.  `archive` knows the bytes, this module what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

import numpy as np

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise._version import __version__
from dropwise.layers.base import Layer, is_registered, layers_within, registered_class
from dropwise.network import archive
from dropwise.network.archive import File
from dropwise.network.history import Best, Epoch
from dropwise.optimizers import SGD, Adam, Optimizer

FORMAT = 2  # 1: layers and their states only

_OPTIMIZERS: dict[str, type[Optimizer]] = {"Adam": Adam, "SGD": SGD}
_OPTIONAL = ("accuracy", "val_loss", "val_accuracy")  # figures of an epoch that may be None


class Savable(Protocol):
    """What a file holds of a network."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    epochs_done: int
    shuffle_key: int
    history: list[Epoch]
    unfinished: Best | None

    def config(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def check_savable(network: Savable) -> None:
    """Raise if a file cannot hold the network."""
    for layer in layers_within(network):
        if not is_registered(layer):
            raise TypeError(f"{layer!r} cannot be saved: only layers of dropwise can")


# ---- saving ------------------------------------------------------------------------------------


def save(
    network: Savable, file: File, optimizer: Optimizer | None = None, best: Best | None = None
) -> None:
    """Write the network; with the optimizer, and with the state of a training that goes on."""
    check_savable(network)
    header: dict[str, Any] = {
        "format": FORMAT,
        "dropwise": __version__,
        "network": network.config(),
    }
    arrays: dict[str, Array] = {}
    header["state"] = _split("network", network.state_dict(), arrays)
    if optimizer is not None:
        name = type(optimizer).__name__
        if _OPTIMIZERS.get(name) is not type(optimizer):
            raise TypeError(f"{optimizer!r} cannot be saved: only optimizers of dropwise can")
        header["optimizer"] = {"class": name, "config": optimizer.config()}
        state = _split("optimizer", optimizer.state_dict(), arrays)
        header["optimizer"]["state"] = state
    for field in fields(Epoch):
        column = [getattr(epoch, field.name) for epoch in network.history]
        if field.name in _OPTIONAL:
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
        version = header.get("format")
        if version not in (1, FORMAT):
            raise ValueError(
                f"it has format {version!r}; this release reads formats 1 to {FORMAT}: a newer "
                "dropwise may read it"
            )
        if version == 1:
            header, arrays = _from_format_1(header, arrays)
        return _parse(header, arrays)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        name = archive.name_of(file)
        raise ValueError(f"{name} does not hold a network of dropwise: {reason}") from error


def _from_format_1(
    header: dict[str, Any], arrays: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What format 1 said, in the words of this one; it had no history and no optimizer."""
    names = {field.name for field in fields(Epoch)} | {f"{n}.known" for n in _OPTIONAL}
    columns: dict[str, Array] = {
        f"history.{name}": np.zeros(0, np.bool_ if name.endswith("known") else np.float64)
        for name in names
    }
    return header, {f"network.{name}": array for name, array in arrays.items()} | columns


def _parse(header: dict[str, Any], arrays: dict[str, Array]) -> tuple[Savable, Optimizer | None]:
    network: Any = _make_layer(header["network"] | {"class": "Sequential"}, arrays)
    network.load_state_dict(header["state"] | _take("network", arrays))
    network.history = _history(_take("history", arrays))
    optimizer = None
    if "optimizer" in header:
        record = header["optimizer"]
        if record["class"] not in _OPTIMIZERS:
            raise ValueError(f"unknown optimizer {record['class']!r}")
        optimizer = _OPTIMIZERS[record["class"]](**record["config"])
        optimizer.load_state_dict(record["state"] | _take("optimizer", arrays))
    if "best" in header:
        network.unfinished = _best(header["best"], _take("best", arrays), network)
    if arrays:
        raise ValueError(f"unexpected arrays: {', '.join(sorted(arrays))}")
    return network, optimizer


def _take(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """Take the arrays of this prefix out, by the rest of their names."""
    start = prefix + "."
    names = [name for name in arrays if name.startswith(start)]
    return {name.removeprefix(start): arrays.pop(name) for name in names}


def _history(columns: dict[str, Array]) -> list[Epoch]:
    names = [field.name for field in fields(Epoch)]
    _arguments.check_names(columns, [*names, *(f"{n}.known" for n in _OPTIONAL)], "the history")
    length = len(columns["epoch"]) if columns["epoch"].ndim else -1
    for name, column in columns.items():
        if column.shape != (length,) or column.dtype.kind not in "fb":
            raise ValueError(f"the history's {name} is {column.dtype} of shape {column.shape}")
    values = {name: columns[name].tolist() for name in names}
    values["epoch"] = [int(epoch) for epoch in values["epoch"]]
    for name in _OPTIONAL:
        known = columns[f"{name}.known"].tolist()
        values[name] = [v if k else None for v, k in zip(values[name], known, strict=True)]
    return [Epoch(*figures) for figures in zip(*values.values(), strict=True)]


def _best(record: Mapping[str, Any], arrays: dict[str, Array], network: Any) -> Best:
    count = _arguments.as_integer(record["arrays"], "best.arrays", least=0)
    epoch = record["epoch"]
    if epoch is not None:
        epoch = _arguments.as_integer(epoch, "best.epoch", least=1)
    parameters = [p for p, _ in network.parameters()]
    if count not in (0, len(parameters)):
        raise ValueError(f"it has {count} best parameters for {len(parameters)}")
    _arguments.check_names(arrays, ["loss", *map(str, range(count))], "the best epoch")
    values = [
        _arguments.as_values(arrays[str(i)], p.shape, f"best.{i}").astype(p.dtype)
        for i, p in enumerate(parameters[:count])
    ]
    return Best(float(arrays["loss"]), epoch, values)


def _make_layer(config: Mapping[str, Any], arrays: Mapping[str, Array], prefix: str = "") -> Layer:
    """A layer from its class and its `config`; a container with its layers.

    Layers take memory when they are made, so those that the file has no weights for are refused.
    """
    arguments = dict(config)
    name = arguments.pop("class")
    layer_class = registered_class(name)
    if layer_class is None:
        raise ValueError(f"unknown layer {name!r}")
    if "layers" in arguments:
        arguments["layers"] = [
            _make_layer(layer, arrays, f"{prefix}{i}.")
            for i, layer in enumerate(arguments["layers"])
        ]
    if "in_features" in arguments:
        shape = arguments["in_features"], arguments["out_features"]
        weight = arrays.get(f"network.{prefix}weight")
        if weight is None or weight.shape != shape:
            raise ValueError(f"layer {prefix[:-1]} has no weights of shape {shape}")
    return layer_class(**arguments)
