"""The container: a chain of layers that is one layer, and can be trained and saved."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike

from dropwise import _arguments
from dropwise._backends.protocol import Array
from dropwise.layers.base import Layer, is_registered, layers_within, no_forward, register
from dropwise.layers.dense import INCOMPLETE, Dense
from dropwise.layers.run import RunContext
from dropwise.network import files, monte_carlo
from dropwise.network.archive import File
from dropwise.network.fused import FusedLayers, NetworkPass, check_chain
from dropwise.network.history import Best, Epoch
from dropwise.network.trainable import TrainableNetwork
from dropwise.optimizers import Optimizer
from dropwise.random import Seed, key_from_seed, seed_sequence, spawn, spawned_key

_OWN_STATE = ("epochs_done", "shuffle_key")  # names in a state, beside those of the layers


@register
class Sequential(TrainableNetwork):
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

    _pass: NetworkPass | None = None
    gradients_from: object = None  # the last backward, of this network or one around it

    def __init__(self, layers: Sequence[Layer], seed: Seed = None) -> None:
        self.layers = tuple(layers)
        check_chain(self.layers)
        self._fused = FusedLayers(self.layers)
        # Own layers always have parameters, or never; others may change.
        self._parametric = tuple(
            layer for layer in self.layers if not is_registered(layer) or layer.has_parameters()
        )
        self._entry = self._first_dense()
        inner = [layer for layer in layers_within(self) if isinstance(layer, Sequential)]
        self._inner_networks = tuple(inner)
        self.history: list[Epoch] = []
        self.notes: dict[str, Any] = {}
        self.unfinished: Best | None = None
        self.epochs_done = 0
        self.shuffle_key = key_from_seed(None)  # with epochs_done: fixes the order of the rows
        self._seeded = False
        if seed is not None:
            self.reseed(seed_sequence(seed))

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def reseed(self, sequence: np.random.SeedSequence) -> None:
        """Give each layer without a seed its own part of `sequence`.

        Parameters
        ----------
        sequence : SeedSequence
        """
        if self._seeded:
            return
        self._seeded = True
        self.shuffle_key = key_from_seed(sequence)
        for i, layer in enumerate(self.layers):
            layer.reseed(spawn(sequence, i))

    def _become_child(self, i: int) -> None:
        self.shuffle_key = spawned_key(self.shuffle_key, self.epochs_done, i)
        for layer in self.layers:
            layer._become_child(i)

    def _first_dense(self) -> Dense | None:
        """The Dense that gets the columns of the input, if layers of our own lead to it."""
        for layer in self.layers:
            if isinstance(layer, Dense):
                return layer
            if isinstance(layer, Sequential):
                return layer._first_dense()
            if not is_registered(layer):
                return None
        return None

    @property
    def in_features(self) -> int | None:
        """Columns that the network takes; None if its first layers do not say."""
        return None if self._entry is None else self._entry.in_features

    @property
    def out_features(self) -> int | None:
        """Columns of the result; None if the last layers do not say."""
        for layer in reversed(self.layers):
            if isinstance(layer, (Dense, Sequential)):
                return layer.out_features if is_registered(layer) else None
            if not is_registered(layer):
                return None
        return None

    @property
    def input_dtype(self) -> np.dtype[Any] | None:
        """The dtype that inputs are converted to; None if the first layer takes several."""
        first = self.layers[0] if self.layers else None
        return first.dtype if isinstance(first, Dense) and is_registered(first) else None

    # ---- computation

    def forward(self, x: ArrayLike, training: bool = True, *, first_row: int = 0) -> Array:
        """The network's result for `x`; what ``backward`` needs is remembered.

        Parameters
        ----------
        x : array_like, shape (B, ..., features)
            Real numbers.
        training : bool
            Whether dropout is active.
        first_row : int
            Where in a larger batch the rows of `x` are: they get the masks that they have there.

        Returns
        -------
        ndarray, shape (B, ..., out_features)

        Raises
        ------
        TypeError, ValueError
            If `x` is anything else.  Nothing has changed then.

        Notes
        -----
        A forward that fails later has taken no stream of any dropout layer (but of one whose
        ``forward`` is your own), and leaves nothing that ``backward`` could use.
        """
        if training and type(x) is np.ndarray and type(first_row) is int and not first_row:
            last = self._take_pass()
            if last is not None:
                again = self._fused.forward_again(x, last)
                self.__dict__.setdefault("_pass", last)
                if again is not None:
                    return again
        rows = self.check_input(x)
        with RunContext(training, keep_records=True) as context:
            context.first_row = _arguments.as_integer(first_row, "first_row", least=0)
            y, this = self._fused.forward(rows, context, self._take_pass())
        self._pass = this
        return y

    def _take_pass(self) -> NetworkPass | None:
        """What the last forward left: of several threads, only one gets it."""
        taken: NetworkPass | None = self.__dict__.pop("_pass", None)
        return taken

    def check_input(self, x: ArrayLike) -> Array:
        """`x` as an array that the network takes; every method raises the same if it is none.

        Parameters
        ----------
        x : array_like of real numbers, shape (B, ..., features)
        """
        rows = _arguments.as_network_input(x, "Sequential")
        if self._entry is not None:
            _arguments.check_columns(rows, self._entry.in_features, self._entry)
        return rows

    @property
    def heeds_block_rows(self) -> bool:
        """Whether all products of a run are computed in the blocks that its context asks for."""
        return self._fused.heeds_block_rows

    def _run(self, x: Array, context: RunContext) -> tuple[Array, NetworkPass | None]:
        return self._fused.forward(x, context)

    @overload
    def backward(self, dy: ArrayLike, *, input_grad: Literal[True] = True) -> Array: ...
    @overload
    def backward(self, dy: ArrayLike, *, input_grad: bool = ...) -> Array | None: ...
    def backward(self, dy: ArrayLike, *, input_grad: bool = True) -> Array | None:
        """Set the gradients of all parameters.

        Parameters
        ----------
        dy : array_like, shape of what ``forward`` returned
            Real numbers.
        input_grad : bool
            Whether to compute the gradient with respect to `x`, too.  It costs a product.

        Returns
        -------
        ndarray, or None
            The gradient with respect to the `x` of the last forward.
        """
        this = self._take_pass()
        if this is None:
            raise no_forward("Sequential")
        try:
            return self._gradient(this, dy, input_grad=input_grad)
        finally:
            self.__dict__.setdefault("_pass", this)  # unless another thread has been forward

    @overload
    def _gradient(self, record: NetworkPass, dy: ArrayLike) -> Array: ...
    @overload
    def _gradient(
        self, record: NetworkPass, dy: ArrayLike, *, input_grad: bool
    ) -> Array | None: ...
    def _gradient(
        self, record: NetworkPass, dy: ArrayLike, *, input_grad: bool = True
    ) -> Array | None:
        gradient = _arguments.as_gradient(dy, record.shape, record.dtype, "Sequential")
        self.gradients_from = INCOMPLETE
        dx = self._fused.backward(gradient, record, input_grad=input_grad)
        this = object()
        self.gradients_from = this
        for network in self._inner_networks:
            network.gradients_from = this
        for dense in self._fused.dense:
            dense.gradients_from = this
        return dx

    def predict(self, x: ArrayLike) -> Array:
        """The network's result at inference: nothing is dropped, and nothing is remembered.

        Parameters
        ----------
        x : array_like, shape (B, ..., features)
            Real numbers.

        Returns
        -------
        ndarray, shape (B, ..., out_features)
            For a network that ends in a Dense layer: scores.
        """
        return self._fused.infer(self.check_input(x), len(self._fused.blocks))

    def predict_mc(
        self,
        x: ArrayLike,
        n_samples: int = 100,
        *,
        transform: Callable[[Array], Array] | None = None,
        first_row: int = 0,
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the result over random masks (Monte Carlo dropout).

        Parameters
        ----------
        x : array_like, shape (B, ..., features)
            Real numbers.
        n_samples : int
        transform : callable, optional
            Applied to the results before they are averaged, e.g. a softmax.  It gets arrays of
            shape (m, ..., out_features) with the results of some rows and samples, and has to treat
            each row by itself.
        first_row : int
            Where in a larger batch the rows of `x` are.  Copies of a network that each take a part
            of the rows get the results that one has for all.

        Returns
        -------
        mean, std : ndarray
            Of the shape of ``predict(x)``; the deviation is that of the population.

        Notes
        -----
        What comes before the first dropout is computed once.  Each dropout layer uses one stream,
        its next one, for the whole call: the mask of sample s of row r is that of row
        ``r * n_samples + s`` of a batch.  Where rows share their masks, samples do not.

        References
        ----------
        .. [1] Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML (2016).
        """
        rows = self.check_input(x)
        n_samples = _arguments.as_integer(n_samples, "n_samples", least=1)
        first_row = _arguments.as_integer(first_row, "first_row", least=0)
        return monte_carlo.predict_mc(self._fused, rows, n_samples, transform, first_row)

    def has_parameters(self) -> bool:
        """Whether any layer has."""
        return any(layer.has_parameters() for layer in self.layers)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Pairs (parameters, gradient) of all layers."""
        if self.gradients_from is INCOMPLETE:
            raise RuntimeError(
                "Sequential: the last backward failed, and has left gradients incomplete"
            )
        last = self.gradients_from
        for dense in self._fused.dense:
            if dense.gradients_from is not last:
                self._check_one_by_one()
                break
        return [pair for layer in self._parametric for pair in layer.parameters()]

    def _check_one_by_one(self) -> None:
        """Raise unless the layers were called one by one since the last backward, all of them."""
        if any(dense.gradients_from is not None for dense in self._fused.dense):
            raise RuntimeError(
                "Sequential: since its last backward, another network or a call of one of its "
                "layers has written to its gradients; call backward again"
            )

    def parameter_values(self) -> list[Array]:
        """The arrays of `parameters` alone, whatever became of their gradients."""
        return [p for layer in self._parametric for p in layer.parameter_values()]

    def regularization_loss(self) -> float:
        """The sum of the layers' regularisation losses."""
        return sum([layer.regularization_loss() for layer in self._parametric])

    # ---- state

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
        """Set what `state_dict` gave; if any of it does not fit, nothing is set.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.
        """
        Sequential._set_state(self, Sequential._checked_state(self, state))

    def _checked_state(self, state: Mapping[str, Any]) -> _NetworkState:
        if not isinstance(state, Mapping):
            raise TypeError(f"Sequential: state must be a mapping, got {type(state).__name__}")
        parts: dict[str, dict[str, Any]] = {str(i): {} for i in range(len(self.layers))}
        own = {}
        for name, value in state.items():
            index, dot, rest = name.partition(".") if isinstance(name, str) else (name, "", "")
            if dot and index in parts:
                parts[index][rest] = value
            else:
                own[name] = value
        missing = [name for name in _OWN_STATE if name not in own]
        unexpected = [name for name in own if name not in _OWN_STATE]
        checked: list[Any] = []
        others: list[Exception] = []
        for (i, part), layer in zip(parts.items(), self.layers, strict=True):
            try:
                checked.append(layer._checked_state(part))
            except _arguments.NamesError as error:
                missing += [f"{i}.{name}" for name in error.missing]
                unexpected += [f"{i}.{name}" for name in error.unexpected]
            except (TypeError, ValueError) as error:
                others.append(type(error)(f"layer {i}: {error}"))
        if missing or unexpected:
            raise _arguments.NamesError("Sequential: state", missing, unexpected)
        if others:
            raise others[0]
        return _NetworkState(
            _arguments.as_integer(own["epochs_done"], "epochs_done", least=0),
            _arguments.as_hex(own["shuffle_key"], "shuffle_key"),
            checked,
        )

    def _set_state(self, checked: _NetworkState) -> None:
        before = None
        if not all(is_registered(layer) for layer in layers_within(self)):
            # A layer of one's own may refuse its part, and may have lent its arrays to its state.
            before = copy.deepcopy([layer.state_dict() for layer in self.layers])
        try:
            for layer, part in zip(self.layers, checked.layers, strict=True):
                layer._set_state(part)
        except BaseException:
            for layer, part in zip(self.layers, before or [], strict=False):
                with contextlib.suppress(Exception):  # the first error is the one to report
                    layer._set_state(layer._checked_state(part))
            raise
        self.epochs_done = checked.epochs_done
        self.shuffle_key = checked.shuffle_key
        self._seeded = True

    def save(self, file: File, optimizer: Optimizer | None = None) -> None:
        """Write layers, state, history and notes to one ``.npz`` file; no pickle is involved.

        Parameters
        ----------
        file : path, or binary file open for writing
            A path is replaced in one step: a full disk or a kill leaves the file that was there.
        optimizer : Adam or SGD, optional
            Written too, with its state; `load_checkpoint` then goes on bit for bit.

        Raises
        ------
        TypeError
            If the network, the optimizer, or a layer is not of a class of this package.  No file is
            touched then.
        OSError
            If the file cannot be written.
        """
        files.save(self, file, optimizer)

    @classmethod
    def load(cls, file: File) -> Sequential:
        """The network in a file that `save` wrote; an optimizer in it is ignored.

        Parameters
        ----------
        file : path, or binary file open for reading

        Raises
        ------
        ValueError
            If the file is anything else, or damaged; the message says what is wrong and where.
            Memory is taken for what the file holds, not for what it claims.
        OSError
            If there is no file that can be read.
        """
        network, _ = files.load(file)
        assert isinstance(network, Sequential)
        return network

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in super().__getstate__().items() if k != "gradients_from"}
        return state | {"history": list(self.history)}

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(repr(layer) for layer in self.layers)}])"


class _NetworkState(NamedTuple):
    """A state that has been checked."""

    epochs_done: int
    shuffle_key: int
    layers: list[Any]
