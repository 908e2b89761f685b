"""Network files: layers and state in one ``.npz``, without pickle.

The file holds one array per array of `state_dict`, and under the name ``dropwise`` a JSON text: the
format's number, the network's `config`, and everything in its state that is not an array.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dropwise.layers.base import Layer, registered_class

FORMAT = 1


def save(network: Layer, path: str | os.PathLike[str]) -> None:
    """Write the layers and the state of `network`."""
    for layer in _layers_within(network):
        if registered_class(type(layer).__name__) is not type(layer):
            raise TypeError(f"{layer!r} cannot be saved: only layers of dropwise can")
    arrays, plain = {}, {}
    for name, value in network.state_dict().items():
        if isinstance(value, np.ndarray):
            # NumPy's format does not know bfloat16; float32 holds it exactly.
            arrays[name] = value if value.dtype.kind == "f" else value.astype(np.float32)
        else:
            plain[name] = value
    text = json.dumps({"format": FORMAT, "network": network.config(), "state": plain})
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, dropwise=np.array(text), **arrays)


def load(path: str | os.PathLike[str]) -> Layer:
    """The network that `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        if "dropwise" not in file:
            raise ValueError(f"{os.fspath(path)!r} was not written by Sequential.save")
        header = json.loads(str(file["dropwise"]))
        if header["format"] != FORMAT:
            raise ValueError(
                f"{os.fspath(path)!r} has format {header['format']!r}; this release reads {FORMAT}"
            )
        arrays = {name: file[name] for name in file.files if name != "dropwise"}
    network = _make_layer({"class": "Sequential"} | header["network"])
    network.load_state_dict(header["state"] | arrays)
    return network


def _make_layer(config: Mapping[str, Any]) -> Layer:
    """A layer from the name of its class and its `config`; for a container, with its layers."""
    arguments = dict(config)
    name = arguments.pop("class")
    layer_class = registered_class(name)
    if layer_class is None:
        raise ValueError(f"unknown layer {name!r}")
    if "layers" in arguments:
        arguments["layers"] = [_make_layer(layer) for layer in arguments["layers"]]
    return layer_class(**arguments)


def _layers_within(layer: Layer) -> Iterator[Layer]:
    """The layer and, for a container, everything in it."""
    yield layer
    for child in getattr(layer, "layers", ()):
        yield from _layers_within(child)
