"""The container: runs a chain of layers, fused where it can, trains it and saves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dropwise._backends.protocol import Array
from dropwise.layers.activations import ReLU
from dropwise.layers.base import Layer, check_gradient, no_forward, register
from dropwise.layers.dense import Dense
from dropwise.layers.dropout import Dropout
from dropwise.losses import Loss
from dropwise.network import files, monte_carlo, training
from dropwise.network.blocks import ForwardRecord
from dropwise.network.fused import FusedLayers
from dropwise.network.training import Epoch
from dropwise.optimizers import Optimizer
from dropwise.random import Seed, key_from_seed, seed_sequence, spawn


@register
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
        self._fused = FusedLayers(self.layers)
        self._workspaces = self._fused.new_workspaces()
        self._pass: tuple[list[ForwardRecord | None], tuple[int, ...], np.dtype[Any]] | None = None
        self.epochs_done = 0
        self.shuffle_key = key_from_seed(None)
        self._seeded = False
        if seed is not None:
            self.reseed(seed_sequence(seed))

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Give each layer without a seed its own part of `sequence`."""
        if self._seeded:
            return
        self._seeded = True
        self.shuffle_key = key_from_seed(sequence)
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
        y, records = self._fused.forward(np.asarray(x), training, self._workspaces)
        self._pass = records, y.shape, y.dtype
        return y

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
        if self._pass is None:
            raise no_forward("Sequential")
        records, shape, dtype = self._pass
        dy = check_gradient(dy, shape, dtype, "Sequential")
        return self._fused.backward(dy, records, self._workspaces, input_grad=input_grad)

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
        return self._fused.infer(np.asarray(x), len(self._fused.blocks))

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
        self._pass = None  # the masks of the last forward are about to be overwritten
        return monte_carlo.predict_mc(self._fused, np.asarray(x), n_samples, transform)

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
        return training.collect(run, epochs, progress)

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
        settings = training.Settings(loss, optimizer, epochs, batch_size, shuffle, validation_data)
        return training.train_epochs(self, x, y, settings)

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, loss: Loss) -> tuple[float, float | None]:
        """Data loss and accuracy (None if the loss knows none) at inference."""
        return loss.forward(self.predict(x), y), loss.accuracy

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
            "shuffle_key": f"{self.shuffle_key:#018x}",
        }
        for i, layer in enumerate(self.layers):
            state |= {f"{i}.{name}": value for name, value in layer.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.epochs_done = int(state["epochs_done"])
        self.shuffle_key = int(state["shuffle_key"], 16)
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
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequential:
        """The network that `save` wrote."""
        network = files.load(path)
        assert isinstance(network, Sequential)
        return network

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
