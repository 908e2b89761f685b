"""The container: runs a chain of layers, fused where it can, trains it and saves it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer, check_gradient, no_forward
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.layers.fused import Chain, Flow, Group, Plain, Trace, Workspace, plan
from dropwise.layers.relu import ReLU
from dropwise.losses import Loss, accuracy_of
from dropwise.optimizers import Optimizer
from dropwise.random import Seed, key_from_seed, seed_sequence, spawn

# Rows that predict computes at a time: the hidden values of so many stay in cache.
_ROWS = 1024


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch: means over its batches, and over the validation data after it."""

    epoch: int  # 1, 2, ... over the life of the network
    loss: float  # data_loss + regularization_loss
    data_loss: float
    regularization_loss: float
    accuracy: float | None  # with dropout active, as all training figures; None for losses without
    learning_rate: float
    val_loss: float | None = None  # data loss only
    val_accuracy: float | None = None


class Sequential(Layer):
    """Layers one after the other.

    Parameters
    ----------
    layers : sequence of Layer
    seed : int, SeedSequence, Generator or None
        Fixes everything random: layer i, unless it has a seed of its own, gets the sequence with
        ``spawn_key=(i,)``; the order of the rows in training depends on it, too.  A Dense whose
        weights have been looked at keeps them.

    Notes
    -----
    ``Dense [-> ReLU] [-> Dropout]`` runs fused: dropped units are never computed and zeros are
    skipped in the products around them.  Masks are those of the layers called one by one, values
    the same to rounding.  Many rows of narrow layers go through all of them in pieces that fit the
    cache.  Memory is kept between calls; what the methods return is yours.

    Examples
    --------
    >>> import dropwise as dw
    >>> x, y = dw.datasets.spiral_data(100, 3, seed=0)
    >>> net = dw.Sequential([dw.Dense(2, 64), dw.ReLU(), dw.Dropout(0.1), dw.Dense(64, 3)], seed=1)
    >>> history = net.fit(
    ...     x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(0.05), epochs=50, progress=False
    ... )
    >>> history[-1].loss < 0.8 * history[0].loss
    True
    >>> net.predict(x).shape
    (300, 3)
    """

    def __init__(self, layers: Sequence[Layer], seed: Seed = None) -> None:
        self.layers = tuple(layers)
        _check_chain(self.layers)
        self._blocks = plan(self.layers)
        self._spaces = [Workspace() for _ in self._blocks]
        self._last: tuple[list[Trace | None], tuple[int, ...], np.dtype[Any]] | None = None
        self.epochs_done = 0
        self._shuffle_key = key_from_seed(None)
        self._seeded = False
        if seed is not None:
            self.reseed(seed_sequence(seed))

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Give each layer without a seed its own part of `sequence`."""
        if self._seeded:
            return
        self._seeded = True
        self._shuffle_key = key_from_seed(sequence)
        for i, layer in enumerate(self.layers):
            layer.reseed(spawn(sequence, i))

    # ---- computation

    def forward(self, x: ArrayLike, training: bool = True) -> Array:
        """The network's result for `x`; what ``backward`` needs is remembered.

        Parameters
        ----------
        x : array_like, shape (B, features)
        training : bool
            Whether dropout drops.

        Returns
        -------
        ndarray
        """
        flow, traces = self._run(np.asarray(x), self._spaces, slice(None), training, trace=True)
        y = flow.full()
        self._last = traces, y.shape, y.dtype
        return y

    def _run(
        self, x: Array, spaces: Sequence[Workspace], blocks: slice, training: bool, *, trace: bool
    ) -> tuple[Flow, list[Trace | None]]:
        """Run some of the blocks."""
        flow, chain = Flow(x), Chain()
        traces = []
        run = self._blocks[blocks]
        for block, following, space in zip(run, [*run[1:], None], spaces[blocks], strict=False):
            # A group is done with its input when the next step begins; others may hand it on.
            fresh = not isinstance(following, Group)
            flow, left = block.forward(flow, training, space, chain, trace=trace, fresh=fresh)
            traces.append(left)
        chain.run()
        return flow, traces

    def backward(self, dy: ArrayLike, *, input_grad: bool = True) -> Array | None:  # type: ignore[override]
        """Set the gradients of all parameters.

        Parameters
        ----------
        dy : array_like, shape and dtype of what ``forward`` returned
        input_grad : bool
            Whether the gradient with respect to `x` is wanted, too.  It costs a product.

        Returns
        -------
        ndarray, or None
            The gradient with respect to `x` of the last forward.
        """
        if self._last is None:
            raise no_forward("Sequential")
        traces, shape, dtype = self._last
        gradient: Any = check_gradient(dy, shape, dtype, "Sequential")
        lowest = 0  # below it nobody asks for a gradient
        if not input_grad:
            trains = [block.trains for block in self._blocks]
            lowest = trains.index(True) if True in trains else len(trains)
        gated, chain = False, Chain()
        for i in range(len(self._blocks) - 1, lowest - 1, -1):
            before = traces[i - 1] if i else None
            gradient = self._blocks[i].backward(
                traces[i],
                gradient,
                before,
                self._spaces[i],
                chain,
                gated=gated,
                want_dx=input_grad or i > lowest,
            )
            gated = before is not None and isinstance(self._blocks[i], Group)
        chain.run()
        return gradient if input_grad else None

    def predict(self, x: ArrayLike) -> Array:
        """The network's result at inference, row by row: nothing is dropped, nothing is remembered.

        Parameters
        ----------
        x : array_like, shape (B, features)

        Returns
        -------
        ndarray
            For a network that ends in a Dense layer: scores, shape (B, out_features).
        """
        return self._infer(np.asarray(x), len(self._blocks))

    def _infer(self, x: Array, stop: int) -> Array:
        """Blocks before `stop`, at inference, some rows at a time."""
        spaces = [Workspace() for _ in self._blocks]
        parts = []
        for start in range(0, max(1, len(x)), _ROWS):
            rows = x[start : start + _ROWS]
            parts.append(self._run(rows, spaces, slice(stop), False, trace=False)[0].full())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def predict_mc(
        self,
        x: ArrayLike,
        n_samples: int = 100,
        *,
        transform: Callable[[Array], Array] | None = None,
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the result over random masks (Monte Carlo dropout).

        Parameters
        ----------
        x : array_like, shape (B, features)
        n_samples : int
        transform : callable, optional
            Applied to each sample of the result (all rows of it), e.g. a softmax.

        Returns
        -------
        mean, std : ndarray
            Of the shape of ``predict(x)``; the deviation is that of the population.

        Notes
        -----
        What comes before the first dropout is computed once.  The masks are the next ones of the
        layers: a stream serves as many samples as make up some 1000 rows.

        References
        ----------
        .. [1] Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML (2016).
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples!r}")
        self._last = None  # the masks of the last forward are about to be overwritten
        start, dropout, x = self._before_dropout(np.asarray(x))
        rows = len(x)
        together = max(1, min(n_samples, _ROWS // max(1, rows)))
        if any(
            isinstance(layer, Dropout) and layer.noise_shape is not None for layer in self.layers
        ):
            together = 1  # a mask that rows share would be shared by samples
        spaces = [Workspace() for _ in self._blocks]
        repeated = x if together == 1 else np.tile(x, (together,) + (1,) * (x.ndim - 1))
        origin: Array | float = 0.0
        total = squares = np.zeros(())
        for done in range(0, n_samples, together):
            n = min(together, n_samples - done)
            inputs = repeated[: n * rows]
            if dropout is not None:
                inputs = dropout.forward(inputs)
            y = self._run(inputs, spaces, slice(start, None), True, trace=False)[0].full()
            y = (y if transform is None else transform(y)).reshape(n, rows, *y.shape[1:])
            if done == 0:  # sums of differences from the first sample lose no digits
                origin = y[0].astype(np.float64)
            difference = y - origin
            total = total + difference.sum(axis=0)
            squares = squares + np.square(difference).sum(axis=0)
        shift = total / n_samples
        std = np.sqrt(np.maximum(squares / n_samples - shift**2, 0.0))
        dtype = y.dtype if y.dtype.kind == "f" else np.float64
        return (origin + shift).astype(dtype), std.astype(dtype)

    def _before_dropout(self, x: Array) -> tuple[int, Dropout | None, Array]:
        """What does not depend on masks: the values, the dropout they go to, the block after it."""
        for i, block in enumerate(self._blocks):
            if isinstance(block, Plain) and type(block.layer) in (Dense, ReLU):
                continue
            if isinstance(block, Group) and block.dropout is None:
                continue
            x = self._infer(x, i)
            if isinstance(block, Group) and block.dropout and not block.dropout.noise_shape:
                bare, chain = Group(block.dense, block.relu, None), Chain()
                flow, _ = bare.forward(Flow(x), False, Workspace(), chain, trace=False, fresh=True)
                chain.run()
                return i + 1, block.dropout, flow.full()
            return i, None, x
        return len(self._blocks), None, self._infer(x, len(self._blocks))

    # ---- training

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        loss: Loss,
        optimizer: Optimizer,
        epochs: int = 1,
        batch_size: int | None = 128,
        shuffle: bool = True,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        progress: bool = True,
    ) -> list[Epoch]:
        """Train.

        Parameters
        ----------
        x : array_like, shape (n, features)
        y : array_like, shape (n, ...)
            What `loss` compares with: classes, or values.
        loss : SoftmaxCrossEntropy, MeanSquaredError, or one of your own
        optimizer : Adam or SGD
        epochs : int
        batch_size : int or None
            Rows of a step; None: all of them.
        shuffle : bool
            Take the rows in a new order in each epoch (where there are several batches).
        validation_data : (x, y), optional
            Evaluated after each epoch.
        progress : bool
            Show a progress bar, if tqdm is installed.

        Returns
        -------
        list of Epoch
            The figures of each epoch.

        See Also
        --------
        iter_fit : the same, epoch by epoch.
        """
        run = self.iter_fit(
            x,
            y,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation_data=validation_data,
        )
        bar = _progress_bar(epochs) if progress else None
        history = []
        try:
            for epoch in run:
                history.append(epoch)
                if bar is not None:
                    bar.set_postfix_str(_figures(epoch), refresh=False)
                    bar.update()
        finally:
            if bar is not None:
                bar.close()
        return history

    def iter_fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        loss: Loss,
        optimizer: Optimizer,
        epochs: int = 1,
        batch_size: int | None = 128,
        shuffle: bool = True,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Iterator[Epoch]:
        """Train as `fit` does, giving the figures after each epoch; stop by leaving the loop.

        Between two epochs the network can be used as always: evaluated, saved, changed.
        """
        x, y = self._as_input(x), np.asarray(y)
        n = len(x)
        if len(y) != n or n == 0:
            raise ValueError(f"x and y must have the same number of rows, got {n} and {len(y)}")
        size = n if batch_size is None else min(batch_size, n)
        if size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size!r}")
        if validation_data is not None:
            validation_data = self._as_input(validation_data[0]), np.asarray(validation_data[1])
        shuffled = shuffle and size < n
        space = Workspace()
        for _ in range(epochs):
            if shuffled:
                order = np.random.default_rng([self._shuffle_key, self.epochs_done]).permutation(n)
            learning_rate = optimizer.current_learning_rate
            sums = np.zeros(3)
            known = False  # whether the loss has an accuracy
            for start in range(0, n, size):
                stop = min(start + size, n)
                if shuffled:
                    rows = order[start:stop]
                    x_batch = space.array("x", (len(rows), *x.shape[1:]), x.dtype)
                    np.take(x, rows, axis=0, out=x_batch, mode="clip")
                    y_batch = y[rows]
                else:
                    x_batch, y_batch = x[start:stop], y[start:stop]
                data_loss, penalty, accuracy = self._step(x_batch, y_batch, loss, optimizer)
                known = accuracy is not None
                sums += (stop - start) * np.array([data_loss, penalty, accuracy or 0.0])
            self.epochs_done += 1
            data_loss, penalty, accuracy = (sums / n).tolist()
            val_loss, val_accuracy = (
                (None, None)
                if validation_data is None
                else self.evaluate(*validation_data, loss=loss)
            )
            yield Epoch(
                self.epochs_done,
                data_loss + penalty,
                data_loss,
                penalty,
                accuracy if known else None,
                learning_rate,
                val_loss,
                val_accuracy,
            )

    def _step(
        self, x: Array, y: Array, loss: Loss, optimizer: Optimizer
    ) -> tuple[float, float, float | None]:
        """One update; data loss, regularisation loss and accuracy before it."""
        data_loss = loss.forward(self.forward(x), y)
        penalty = self.regularization_loss()
        accuracy = accuracy_of(loss)
        self.backward(loss.backward(), input_grad=False)
        optimizer.step(self.parameters())
        return data_loss, penalty, accuracy

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, loss: Loss) -> tuple[float, float | None]:
        """Data loss and accuracy (None if the loss knows none) at inference."""
        return loss.forward(self.predict(x), np.asarray(y)), accuracy_of(loss)

    def _as_input(self, x: ArrayLike) -> Array:
        """Training data in the network's dtype, converted once and not at each step."""
        x = np.asarray(x)
        for layer in self.layers:
            if isinstance(layer, Dense):
                return x.astype(layer.dtype, copy=False)
        return x

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs (parameters, gradient) of all layers."""
        return [pair for layer in self.layers for pair in layer.parameters()]

    def regularization_loss(self) -> float:
        """The sum of the layers' regularisation losses."""
        return sum(layer.regularization_loss() for layer in self.layers)

    # ---- state

    def config(self) -> dict[str, Any]:
        """The layers' classes and arguments: JSON-safe."""
        return {
            "layers": [{"class": type(layer).__name__} | layer.config() for layer in self.layers]
        }

    def state_dict(self) -> dict[str, Any]:
        """The layers' states, under names like ``"0.weight"``, and the count of epochs."""
        state: dict[str, Any] = {
            "epochs_done": self.epochs_done,
            "shuffle_key": f"{self._shuffle_key:#018x}",
        }
        for i, layer in enumerate(self.layers):
            state |= {f"{i}.{name}": value for name, value in layer.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.epochs_done = int(state["epochs_done"])
        self._shuffle_key = int(state["shuffle_key"], 16)
        self._seeded = True
        for i, layer in enumerate(self.layers):
            prefix = f"{i}."
            layer.load_state_dict(
                {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers and state to one ``.npz`` file; no pickle is involved.

        Only layers of this package can be saved.  The optimizer's state is not part of it.
        """
        for layer in _flat(self):
            if type(layer) not in _SAVABLE:
                raise TypeError(f"{layer!r} cannot be saved: only layers of dropwise can")
        arrays, plain = {}, {}
        for name, value in self.state_dict().items():
            if isinstance(value, np.ndarray):
                # NumPy's format does not know bfloat16; float32 holds it exactly.
                arrays[name] = value if value.dtype.kind == "f" else value.astype(np.float32)
            else:
                plain[name] = value
        text = json.dumps({"format": 1, "network": self.config(), "state": plain})
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=False, dropwise=np.array(text), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequential:
        """The network that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            if "dropwise" not in file:
                raise ValueError(f"{os.fspath(path)!r} was not written by Sequential.save")
            header = json.loads(str(file["dropwise"]))
            if header["format"] != 1:
                raise ValueError(
                    f"{os.fspath(path)!r} has format {header['format']!r}; this release reads 1"
                )
            state = header["state"] | {
                name: file[name] for name in file.files if name != "dropwise"
            }
        net = _build(header["network"])
        assert isinstance(net, Sequential)
        net.load_state_dict(state)
        return net

    def summary(self) -> str:
        """A table of the layers and how many parameters they have."""
        rows = [(str(i), repr(layer), f"{_count(layer):,}") for i, layer in enumerate(self.layers)]
        rows.append(("", "total", f"{_count(self):,}"))
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join(
            f"{i:>{widths[0]}}  {name:<{widths[1]}}  {count:>{widths[2]}}"
            for i, name, count in rows
        )

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(repr(layer) for layer in self.layers)}])"


_SAVABLE: dict[type[Layer], str] = {c: c.__name__ for c in (Dense, Dropout, ReLU, Sequential)}


def _build(config: Mapping[str, Any]) -> Layer:
    """A layer from its class's name and its `config`."""
    arguments = dict(config)
    name = arguments.pop("class", "Sequential")
    for layer_class, known in _SAVABLE.items():
        if name == known:
            if layer_class is Sequential:
                return Sequential([_build(c) for c in arguments["layers"]])
            return layer_class(**arguments)
    raise ValueError(f"unknown layer {name!r}")


def _flat(layer: Layer) -> Iterator[Layer]:
    """The layer and, for a container, everything in it."""
    yield layer
    if isinstance(layer, Sequential):
        for child in layer.layers:
            yield from _flat(child)


def _count(layer: Layer) -> int:
    return sum(p.size for p, _ in layer.parameters())


def _check_chain(layers: Sequence[Layer]) -> None:
    """Raise if these layers cannot be a chain."""
    before: Dense | None = None
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers must be Layer objects, got {layer!r}")
        if any(layer is other for other in layers[:i]):
            raise ValueError(
                f"{layer!r} is in the network twice; a layer remembers one forward, use two layers"
            )
        if not isinstance(layer, Dense):
            before = before if isinstance(layer, (ReLU, Dropout)) else None
            continue
        if before is not None and before.out_features != layer.in_features:
            raise ValueError(
                f"{before!r} gives {before.out_features} columns; "
                f"{layer!r} takes {layer.in_features}"
            )
        if before is not None and before.dtype != layer.dtype:
            raise ValueError(f"{before!r} gives {before.dtype}; {layer!r} takes {layer.dtype}")
        before = layer


def _figures(epoch: Epoch) -> str:
    """One line for a progress bar."""
    text = f"loss {epoch.loss:.4f}"
    if epoch.accuracy is not None:
        text += f", acc {epoch.accuracy:.3f}"
    if epoch.val_loss is not None:
        text += f", val loss {epoch.val_loss:.4f}"
    if epoch.val_accuracy is not None:
        text += f", val acc {epoch.val_accuracy:.3f}"
    return text


def _progress_bar(epochs: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=epochs, unit="epoch")
