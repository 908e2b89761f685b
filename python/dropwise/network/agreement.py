"""What ranks must have in common to end with the same weights, and how they differ if not."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from dropwise._backends import active
from dropwise._backends.protocol import Array
from dropwise._version import __version__
from dropwise.losses import Loss
from dropwise.network.data import Data
from dropwise.network.training import Settings, Trainable
from dropwise.optimizers import Optimizer
from dropwise.random import MASK_CONTRACT

_SAMPLED = 64  # rows of the data that are compared
_NAMED = 5  # differences in a message

Description = Mapping[str, Any]  # plain values by dotted names


def description(
    network: Trainable, data: Data, validation: Data | None, settings: Settings
) -> Description:
    """All that decides what this rank computes: versions, network, optimizer, options, data."""
    parts: dict[str, Any] = {
        "versions": _versions(),
        "network": network.config() | {"state": network.state_dict()},
        "loss": _description_of_loss(settings.loss),
        "optimizer": _description_of_optimizer(settings.optimizer),
        "options": _options(settings),
        "data": _description_of_data(data, settings),
    }
    if validation is not None:
        parts["validation data"] = _description_of_data(validation, settings)
    best = network.unfinished
    if best is not None:
        parts["best epoch so far"] = {"epoch": best.epoch, "loss": best.loss}
    return dict(_flat("", parts))


def differences(descriptions: Sequence[Description]) -> str | None:
    """How the first rank that differs from rank 0 does, or None if none does."""
    first = descriptions[0]
    for rank, other in enumerate(descriptions):
        names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if names:
            listed = [
                f"{name}: {other.get(name, 'none')} there, {first.get(name, 'none')} on rank 0"
                for name in names[:_NAMED]
            ]
            more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            if any(name.endswith("key") for name in names):
                more += "; networks need the same seed in all ranks"
            return f"rank {rank} of {len(descriptions)} differs in {'; '.join(listed)}{more}"
    return None


def _versions() -> dict[str, Any]:
    backend = active().name
    found = {
        "dropwise": __version__,
        "mask contract": MASK_CONTRACT,
        "numpy": np.__version__,
        "backend": backend,
        "CPU": _cpu_kind(),
    }
    if backend == "native":
        from dropwise import _native

        return found | {"instruction set": _native.active_isa()}
    import numba

    # NumPy's BLAS may cut a product by its threads.
    return found | {"numba": numba.__version__, "threads": active().num_threads()}


def _cpu_kind() -> str:
    """The microarchitecture: which kernels NumPy and the backends choose follows from it."""
    try:
        from llvmlite import binding
    except ImportError:
        return f"{platform.machine()} {platform.processor()}"
    return f"{platform.machine()} {binding.get_host_cpu_name()}"


def _description_of_loss(loss: Loss) -> Any:
    kind = type(loss)
    inner: Loss | None = getattr(loss, "loss", None)
    name = {"class": f"{kind.__module__}.{kind.__qualname__}"} | _numbers_of(loss)
    return name if inner is None else name | {"of": _description_of_loss(inner)}


def _description_of_optimizer(optimizer: Optimizer) -> Any:
    found: dict[str, Any] = {"class": type(optimizer).__qualname__}
    for name in ("config", "state_dict"):
        method = getattr(optimizer, name, None)
        # One of the user's own may have none.
        found |= _numbers_of(optimizer) if method is None else method()
    return found


def _numbers_of(given: object) -> dict[str, Any]:
    """The plain values of an object, which may be of a class of the user's own."""
    plain = (bool, int, float, str)
    values = getattr(given, "__dict__", {})
    return {name: value for name, value in values.items() if isinstance(value, plain)}


def _options(settings: Settings) -> dict[str, Any]:
    described = ("loss", "optimizer", "checkpoint", "division")
    options = {f.name: getattr(settings, f.name) for f in fields(settings)}
    division = settings.division
    return {name: value for name, value in options.items() if name not in described} | {
        "checkpoint": settings.checkpoint is not None,
        "exact": division is not None and division.exact,
        "sharded": division is not None and division.sharded,
        "block_rows": None if division is None else division.block_rows,
    }


def _description_of_data(data: Data, settings: Settings) -> dict[str, Any]:
    """Shapes and dtypes; and of the same data for all, some rows."""
    x, y, weight = data
    sharded = settings.division is not None and settings.division.sharded
    found = {
        "x": f"{x.dtype} (rows, {', '.join(map(str, x.shape[1:]))})",
        "y": f"{y.dtype} (rows, {', '.join(map(str, y.shape[1:]))})",
        "weights": weight is not None,
    }
    if sharded:
        return found
    rows = np.linspace(0, len(y) - 1, min(len(y), _SAMPLED)).astype(np.intp)
    return found | {
        "rows": len(y),
        "values of x": np.asarray(x[rows]),
        "values of y": y,
        "values of the weights": weight,
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The plain values in mappings and sequences; of an array, what it holds in few letters."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _flat(f"{name}.{i}", inner)
    elif isinstance(value, np.ndarray):
        yield name, _digest(value)
    else:
        yield name, value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)


def _digest(array: Array) -> str:
    digest = hashlib.sha256(array.tobytes()).hexdigest()[:12]
    return f"{array.dtype} {array.shape} with digest {digest}"
