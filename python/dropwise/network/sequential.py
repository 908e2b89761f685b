"""The container: a chain of layers that is one layer, and can be trained and saved."""

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
from dropwise.losses import Loss, accuracy_of
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
        ``spawn_key=(i,)``.  The order of the rows in training depends on it, too.  A Dense draws
        its weights when they are first used; one that has drawn them keeps them.

    Notes
    -----
    ``Dense [-> ReLU] [-> Dropout]`` runs fused: dropped units are never computed, and the products
    around them skip zeros.  Masks are those of the layers called one by one; values are the
    same to rounding.  Large batches go through narrow layers in blocks of rows that fit the
    cache.  Working memory is kept between calls, but no returned array is written to again.

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
        self.shuffle_key = key_from_seed(None)  # with epochs_done: fixes the order of the rows
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

    def forward(self, x: ArrayLike, training: bool = True) -> Array:
        """The network's result for `x`; what ``backward`` needs is remembered.

        Parameters
        ----------
        x : array_like, shape (B, features)
        training : bool
            Whether dropout is active.

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
            Whether to compute the gradient with respect to `x`, too.  It costs a product.

        Returns
        -------
        ndarray, or None
            The gradient with respect to the `x` of the last forward.
        """
        if self._pass is None:
            raise no_forward("Sequential")
        records, shape, dtype = self._pass
        dy = check_gradient(dy, shape, dtype, "Sequential")
        return self._fused.backward(dy, records, self._workspaces, input_grad=input_grad)

    def predict(self, x: ArrayLike) -> Array:
        """The network's result at inference: nothing is dropped, and nothing is remembered.

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
            Applied to each sample of the result, which has all rows; a softmax, for example.

        Returns
        -------
        mean, std : ndarray
            Of the shape of ``predict(x)``; ``std`` is that of the population (``ddof=0``).

        Notes
        -----
        The layers before the first dropout are computed once.  The layers' next masks are used; one
        stream covers as many samples as together have about 1000 rows.

        References
        ----------
        .. [1] Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML (2016).
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples!r}")
        self._pass = None  # the masks of the last forward will be overwritten
        return monte_carlo.predict_mc(self._fused, np.asarray(x), n_samples, transform)

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
        """Train the network.

        Parameters
        ----------
        x : array_like, shape (n, features)
        y : array_like, shape (n, ...)
            The targets that `loss` takes: classes or values.
        loss : SoftmaxCrossEntropy, MeanSquaredError or your own
        optimizer : Adam or SGD
        epochs : int
        batch_size : int or None
            Rows of a step.  None: all rows.
        shuffle : bool
            Take the rows in a new order in each epoch, if there are several batches.
        validation_data : (x, y), optional
            Data to evaluate after each epoch.
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
        return training.collect_epochs(run, epochs, progress)

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
        """Train as `fit` does, and yield the figures of each epoch; leave the loop to stop.

        Between two epochs the network may be used, saved or changed.
        """
        settings = training.Settings(
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation_data=validation_data,
        )
        return training.train_epochs(self, x, y, settings)

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, loss: Loss) -> tuple[float, float | None]:
        """Data loss and accuracy at inference; the accuracy is None if the loss has none."""
        return loss.forward(self.predict(x), np.asarray(y)), accuracy_of(loss)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs (parameters, gradient) of all layers."""
        return [pair for layer in self.layers for pair in layer.parameters()]

    def regularization_loss(self) -> float:
        """The sum of the layers' regularisation losses."""
        return sum(layer.regularization_loss() for layer in self.layers)

    def config(self) -> dict[str, Any]:
        """The classes and arguments of the layers, JSON-safe."""
        return {
            "layers": [{"class": type(layer).__name__} | layer.config() for layer in self.layers]
        }

    def state_dict(self) -> dict[str, Any]:
        """The states of the layers, with names like ``"0.weight"``, and that of the training."""
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
        """Write layers and state to one ``.npz`` file, without pickle.

        Only layers of this package can be saved.  The optimizer's state is not saved.
        """
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequential:
        """The network that `save` wrote."""
        network = files.load(path)
        assert isinstance(network, Sequential)
        return network

    def summary(self) -> str:
        """A table of the layers and the number of their parameters."""
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
    """Raise unless each layer can take the output of the one before it."""
    previous: Dense | None = None
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers must be Layer objects, got {layer!r}")
        if any(layer is other for other in layers[:i]):
            raise ValueError(
                f"{layer!r} is in the network twice; a layer remembers one forward, use two layers"
            )
        if not isinstance(layer, Dense):
            previous = previous if isinstance(layer, (ReLU, Dropout)) else None
            continue
        if previous is not None and previous.out_features != layer.in_features:
            raise ValueError(
                f"{previous!r} gives {previous.out_features} columns; "
                f"{layer!r} takes {layer.in_features}"
            )
        if previous is not None and previous.dtype != layer.dtype:
            raise ValueError(f"{previous!r} gives {previous.dtype}; {layer!r} takes {layer.dtype}")
        previous = layer
