"""What a network file says, checked and made into a network again.

Nothing is believed: names, types, shapes and dtypes are checked before anything is made of them.
Whatever is raised here, `files` reports as a ValueError that names the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer, registered_class
from dropwise.network.history import Best, Epoch
from dropwise.optimizers import SGD, Adam, Optimizer

OPTIMIZERS: dict[str, type[Optimizer]] = {"Adam": Adam, "SGD": SGD}
OPTIONAL = ("accuracy", "val_loss", "val_accuracy")  # figures of an epoch that may be None
DEEPEST = 50  # networks within networks
_STORED = {"float16": "f2", "float32": "f4", "float64": "f8", "bfloat16": "f4"}  # of weights
_COUNT_END = 1 << 53  # of epochs: what float64 counts


def from_format_1(
    header: dict[str, Any], arrays: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What format 1 said, in the words of this one; it had no history and no optimizer."""
    names = {field.name for field in fields(Epoch)} | {f"{n}.known" for n in OPTIONAL}
    columns: dict[str, Array] = {
        f"history.{name}": np.zeros(0, np.bool_ if name.endswith("known") else np.float64)
        for name in names
    }
    _arguments.check_names(header, ("format", "network", "state"), "the header")
    header = header | {"dropwise": "0.1.0", "notes": {}}
    return header, {f"network.{name}": array for name, array in arrays.items()} | columns


def parse(header: dict[str, Any], arrays: dict[str, Array]) -> tuple[Any, Optimizer | None]:
    names = ["format", "dropwise", "network", "notes", "state"]
    names += [name for name in ("optimizer", "best") if name in header]
    _arguments.check_names(header, names, "the header")
    network: Any = _make_layer(
        _as_dict(header["network"], "network") | {"class": "Sequential"}, arrays
    )
    network.load_state_dict(_joined(header["state"], "network", arrays))
    if not network.epochs_done < _COUNT_END:
        raise ValueError(f"epochs_done must be below 2**53, got {network.epochs_done}")
    network.history = _history(_take("history", arrays))
    network.notes = _as_dict(header["notes"], "notes")
    optimizer = None
    if "optimizer" in header:
        optimizer = _make_optimizer(header["optimizer"], arrays)
    if "best" in header:
        network.unfinished = _best(header["best"], _take("best", arrays), network)
    if arrays:
        raise ValueError(f"unexpected arrays: {', '.join(map(repr, sorted(arrays)))}")
    return network, optimizer


def _make_optimizer(record: Any, arrays: dict[str, Array]) -> Optimizer:
    _arguments.check_names(record, ("class", "config", "state"), "optimizer")
    optimizer_class = OPTIMIZERS.get(_as_str(record["class"], "the class of the optimizer"))
    if optimizer_class is None:
        raise ValueError(f"unknown optimizer {record['class']!r}")
    config = _as_dict(record["config"], "the optimizer's config")
    _arguments.check_names(config, inspect.signature(optimizer_class).parameters, "optimizer")
    optimizer = optimizer_class(**config)
    optimizer.load_state_dict(_joined(record["state"], "optimizer", arrays))
    if not optimizer.iterations < _COUNT_END:
        raise ValueError(f"iterations must be below 2**53, got {optimizer.iterations}")
    return optimizer


def _as_dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got {type(value).__name__}")
    return value


def _as_str(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {value!r}")
    return value


def _joined(state: Any, prefix: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """The plain values of a state, with its arrays, which are taken out of `arrays`."""
    plain = _as_dict(state, f"the state of the {prefix}")
    taken = _take(prefix, arrays)
    if twice := plain.keys() & taken.keys():
        raise ValueError(f"values and arrays of the same name: {', '.join(sorted(twice))}")
    return plain | taken


def _take(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """Take the arrays of this prefix out, by the rest of their names."""
    start = prefix + "."
    names = [name for name in arrays if name.startswith(start)]
    return {name.removeprefix(start): arrays.pop(name) for name in names}


def _history(columns: dict[str, Array]) -> list[Epoch]:
    names = [field.name for field in fields(Epoch)]
    _arguments.check_names(columns, [*names, *(f"{n}.known" for n in OPTIONAL)], "the history")
    for name, column in columns.items():
        _check_array(
            column, columns["epoch"].shape[:1], "b1" if name.endswith(".known") else "f8", name
        )
    values = {name: columns[name].tolist() for name in names}
    epochs = columns["epoch"]
    if not ((epochs >= 1) & (epochs < _COUNT_END) & (epochs == np.floor(epochs))).all():
        raise ValueError("the history's epochs must be whole numbers from 1")
    values["epoch"] = [int(epoch) for epoch in values["epoch"]]
    for name in OPTIONAL:
        known = columns[f"{name}.known"].tolist()
        values[name] = [v if k else None for v, k in zip(values[name], known, strict=True)]
    return [Epoch(*figures) for figures in zip(*values.values(), strict=True)]


def _best(record: Any, arrays: dict[str, Array], network: Any) -> Best:
    _arguments.check_names(record, ("arrays", "epoch"), "best")
    count = _arguments.as_integer(record["arrays"], "best.arrays", least=0)
    epoch = record["epoch"]
    if epoch is not None:
        epoch = _arguments.as_integer(epoch, "best.epoch", least=1)
    parameters = [p for p, _ in network.parameters()]
    if count not in (0, len(parameters)):
        raise ValueError(f"it has {count} best parameters for {len(parameters)}")
    _arguments.check_names(arrays, ["loss", *map(str, range(count))], "the best epoch")
    _check_array(arrays["loss"], (), "f8", "best.loss")
    values = []
    for i, p in enumerate(parameters[:count]):
        _check_array(arrays[str(i)], p.shape, _STORED[p.dtype.name], f"best.{i}")
        values.append(arrays[str(i)].astype(p.dtype))
    return Best(float(arrays["loss"]), epoch, values)


def _check_array(array: Array, shape: tuple[int, ...], stored: str, name: str) -> None:
    if array.shape != shape or array.dtype.str[1:] != stored:
        raise ValueError(
            f"{name} must be {np.dtype(stored)} of shape {shape}, got {array.dtype} of shape "
            f"{array.shape}"
        )


def _make_layer(
    config: Any, arrays: Mapping[str, Array], prefix: str = "", depth: int = 1
) -> Layer:
    """A layer from its class and its `config`; a container with its layers.

    Layers take memory when they are made, so those that the file has no weights for are refused.
    """
    who = f"layer {prefix[:-1]}" if prefix else "the network"
    arguments = dict(_as_dict(config, who))
    name = _as_str(arguments.pop("class", None), f"the class of {who}")
    layer_class = registered_class(name)
    if layer_class is None:
        raise ValueError(f"{who} is an unknown {name!r}")
    if depth > DEEPEST:
        raise ValueError(f"networks are nested deeper than {DEEPEST} times")
    if "layers" in arguments:
        if not isinstance(arguments["layers"], list):
            raise ValueError(f"the layers of {who} must be a list")
        arguments["layers"] = [
            _make_layer(layer, arrays, f"{prefix}{i}.", depth + 1)
            for i, layer in enumerate(arguments["layers"])
        ]
    if "in_features" in arguments:
        _check_weights(arguments, arrays, f"network.{prefix}")
    if "seed" in arguments:
        raise ValueError(f"{who} must not have a seed, but a state")
    try:
        return layer_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who}: {error}") from None


def _check_weights(arguments: Mapping[str, Any], arrays: Mapping[str, Array], prefix: str) -> None:
    stored = _STORED.get(_as_str(arguments.get("dtype", "float32"), f"{prefix}dtype"))
    if stored is None:
        raise ValueError(f"{prefix}dtype must be one of {', '.join(_STORED)}")
    shape: tuple[Any, ...] = (arguments["in_features"], arguments.get("out_features"))
    for name, wanted in (("weight", shape), ("bias", shape[1:])):
        array = arrays.get(f"{prefix}{name}")
        if array is None:
            raise ValueError(f"there are no {prefix}{name}")
        _check_array(array, wanted, stored, f"{prefix}{name}")
