"""What the optimizers share: checks, the state beside each parameter, copies of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from dropwise._arguments import as_real_array, check_number
from dropwise._backends.protocol import Array
from dropwise._dtypes import has_kernel, native, wide_dtype
from dropwise.optimizers.state import Companions, read_state, with_master

Pairs = Sequence[tuple[Array, Array]]


class Number:
    """An attribute that is a float in a range, checked when it is assigned."""

    def __init__(self, *, least: float = 0.0, below: float = float("inf")) -> None:
        self._least, self._below = least, below

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    if TYPE_CHECKING:  # without it, reading finds the instance's own value, at no cost

        @overload
        def __get__(self, instance: None, owner: type) -> Number: ...
        @overload
        def __get__(self, instance: object, owner: type) -> float: ...
        def __get__(self, instance: object | None, owner: type) -> Number | float: ...

    def __set__(self, instance: object, value: float) -> None:
        instance.__dict__[self._name] = check_number(
            value, self._name, least=self._least, below=self._below
        )


class Move(NamedTuple):
    """What a step does with one parameter."""

    p: Array
    g: Array  # as it was given
    flat: Array  # what the rule changes: the memory of `p`, its master copy, or a copy for now
    gradient: Array  # flat, in the same dtype: the memory of `g`, or a copy
    arrays: Mapping[str, Array]  # what is kept beside the parameter
    in_place: bool  # whether `flat` is the memory of `p`
    master: Array | None  # what moves in the place of a `flat` of 16 bits, which follows


@dataclass
class _Plan:
    """What a step does, kept with the arrays themselves: no others can have their addresses."""

    moves: list[Move]
    operands: list[tuple[Any, ...]]  # of the rule
    companions: list[Companions]
    slots: tuple[str, ...]
    ids: list[tuple[int, int]] = field(init=False)
    lasts: bool = field(init=False)  # no array is a copy that was made for this step
    masters: list[tuple[Array, Array]] = field(init=False)  # parameters of 16 bits, master copies
    copied: list[Move] = field(init=False)  # those whose parameters follow after the rule

    def __post_init__(self) -> None:
        self.ids = [(id(move.p), id(move.g)) for move in self.moves]
        self.masters = [
            (move.p, move.arrays["master"]) for move in self.moves if "master" in move.arrays
        ]
        self.copied = [move for move in self.moves if not move.in_place]
        self.lasts = not self.copied and all(
            isinstance(move.g, np.ndarray)
            and (move.g.size == 0 or np.may_share_memory(move.g, move.gradient))
            for move in self.moves
        )

    def serves(self, ids: list[tuple[int, int]], slots: tuple[str, ...]) -> bool:
        """Whether a step on these arrays is the same, with all of them used where they are."""
        return (
            self.lasts
            and self.slots == slots
            and self.ids == ids
            and all([move.p.flags.writeable for move in self.moves])
        )


class Optimizer:
    """What the optimizers share: checks, the state beside each parameter, copies of it."""

    learning_rate = Number()
    decay = Number()
    weight_decay = Number()

    def __init__(self, learning_rate: float, decay: float, weight_decay: float) -> None:
        self.learning_rate = learning_rate
        self.decay = decay
        self.weight_decay = weight_decay
        self.reset()

    def reset(self) -> None:
        """Forget the parameters and all that was learned of them; the settings stay."""
        self.iterations = 0
        self._companions: list[Companions] = []
        self._plan: _Plan | None = None  # of the last step; None: bound to no parameters
        self._torn = False  # whether an update was left in the middle

    def unbind(self) -> None:
        """Keep the state, and take it to the next parameters of the same shapes and dtypes."""
        self._plan = None

    @property
    def current_learning_rate(self) -> float:
        """``learning_rate / (1 + decay * iterations)``, the rate of the next step."""
        rate: float = self.learning_rate / (1.0 + self.decay * self.iterations)
        return rate

    # ---- a step

    def step(self, parameters: Pairs) -> None:
        """Change the parameters by their gradients.

        Parameters
        ----------
        parameters : sequence of (ndarray, ndarray)
            Parameters of a floating dtype, which are changed in place, and gradients of the same
            shapes in any real dtype.

        Raises
        ------
        TypeError, ValueError
            If a pair is none, if two parameters share memory, or if these are not the parameters of
            the last step.  Nothing has changed then.
        RuntimeError
            If the step before was left in the middle.

        Notes
        -----
        float16 and bfloat16 parameters have a master copy in float32, which is what moves; the
        parameter is the master copy rounded.  Where a parameter was changed from outside, the
        master copy starts again from it.
        """
        if self._torn:
            self._check_whole()
        pairs = list(parameters)
        try:
            ids = [(id(p), id(g)) for p, g in pairs]
        except (TypeError, ValueError):
            raise TypeError("step needs a sequence of pairs (parameters, gradient)") from None
        plan = self._plan
        if plan is None or not plan.serves(ids, self._slots()):
            with np.errstate(all="ignore"):
                plan = self._planned(pairs)
        for p, master in plan.masters:
            _start_again(p, master)
        scalars = self._scalars()
        # From here on nothing is refused.
        self._companions, self._plan, self._torn = plan.companions, plan, True
        self._update(plan.operands, scalars)
        for move in plan.copied:
            with np.errstate(all="ignore"):
                move.p[...] = move.flat.reshape(move.p.shape)
        self.iterations += 1
        self._torn = False

    def _planned(self, pairs: list[tuple[Array, Array]]) -> _Plan:
        """What a step does with these pairs, all of it checked and allocated."""
        checked = [_checked(i, pair) for i, pair in enumerate(pairs)]
        parameters = [p for p, _ in checked]
        _check_apart(parameters)
        # The gradient of one may lie where another parameter moves first.
        checked = [
            (p, g.copy() if any(np.may_share_memory(g, q) for q in parameters if q is not p) else g)
            for p, g in checked
        ]
        companions = self._companions_of([p for p, _ in checked])
        moves = [
            _move(p, pair[1], gradient, c.arrays)
            for pair, (p, gradient), c in zip(pairs, checked, companions, strict=True)
        ]
        operands = [self._operands(move) for move in moves]
        return _Plan(moves, operands, companions, self._slots())

    def _check_whole(self) -> None:
        if self._torn:
            raise RuntimeError(
                f"{self}: the last step was left in the middle, some parameters have moved and "
                "others have not; load a state, or call reset()"
            )

    def _companions_of(self, parameters: list[Array]) -> list[Companions]:
        """What is beside these parameters, if they are those of the steps before; or new."""
        before = self._companions
        bound = None if self._plan is None else [move.p for move in self._plan.moves]
        if bound is None and not before:
            before = [Companions(p.dtype.name, p.shape, {}) for p in parameters]
        anew = "; call reset() to start anew"
        if len(parameters) != len(before):
            raise ValueError(
                f"{self} has stepped {len(before)} parameters before, got {len(parameters)}{anew}"
            )
        for i, (p, c) in enumerate(zip(parameters, before, strict=True)):
            if bound is not None and p is bound[i]:
                continue
            if (c.dtype, c.shape) != (p.dtype.name, p.shape):
                raise ValueError(
                    f"{self}: parameter {i} was {c.description} in the steps before, "
                    f"got {p.dtype.name} {p.shape}{anew}"
                )
            if bound is not None and not _same_memory(p, bound[i]):
                raise ValueError(
                    f"{self}: parameter {i} was another array in the steps before, also "
                    f"{c.description}{anew}, or unbind() to keep the state"
                )
        slots = self._slots()  # not always those of the step before: momentum may be assigned
        return [
            c.named(with_master(slots, c.dtype), p) for p, c in zip(parameters, before, strict=True)
        ]

    def _slots(self) -> tuple[str, ...]:
        """The names of the moments."""
        raise NotImplementedError

    def _scalars(self) -> Any:
        """The numbers of the next step."""
        raise NotImplementedError

    def _operands(self, move: Move) -> tuple[Any, ...]:
        """What the backend's rule takes for a parameter."""
        raise NotImplementedError

    def _update(self, operands: list[tuple[Any, ...]], scalars: Any) -> None:
        """Apply the rule to all parameters."""
        raise NotImplementedError

    # ---- state

    def config(self) -> dict[str, Any]:
        """Arguments that make such an optimizer again, with its current settings: JSON-safe."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def state_dict(self) -> dict[str, Any]:
        """What the steps have changed, under names like ``"mean.0"``.

        Returns
        -------
        dict
            ``class``, ``iterations``; for each parameter its dtype and shape as ``parameter.0``
            and copies of what is kept beside it.
        """
        self._check_whole()
        state: dict[str, Any] = {"class": type(self).__name__, "iterations": self.iterations}
        for i, c in enumerate(self._companions):
            state[f"parameter.{i}"] = c.description
            for name, array in c.arrays.items():
                state[f"{name}.{i}"] = array.reshape(c.shape).copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; the next parameters that fit go on from there.

        Parameters
        ----------
        state : mapping
            What `state_dict` gave.

        Raises
        ------
        TypeError, ValueError
            If names are missing or unexpected, or a value is not what its name says.  Nothing has
            changed then.
        """
        iterations, companions = read_state(state, self._slots(), type(self).__name__)
        self.reset()
        self.iterations, self._companions = iterations, companions

    def __getstate__(self) -> dict[str, Any]:
        # Also for copy.copy: two optimizers that share moments would spoil both.
        copies = [c.copy() for c in self._companions]
        return self.__dict__ | {"_plan": None, "_companions": copies}

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        options = "".join(
            f", {name}={value!r}"
            for name, value in list(self.config().items())[1:]
            if value != parameters[name].default
        )
        return f"{type(self).__name__}({self.learning_rate!r}{options})"


def _check_apart(parameters: list[Array]) -> None:
    """Raise if a step would move the same memory twice."""
    for i, p in enumerate(parameters):
        for j, other in enumerate(parameters[:i]):
            if np.shares_memory(p, other):
                raise ValueError(f"parameters {j} and {i} share memory; give each once")


def _checked(i: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
    """A parameter, and its gradient flat and in the dtype in which the parameter moves."""
    p, g = pair
    if type(p) is not np.ndarray:
        if not isinstance(p, np.ndarray) or isinstance(p, np.ma.MaskedArray):
            raise TypeError(f"parameter {i} must be an ndarray, got {type(p).__name__}")
        p = p.view(np.ndarray)
    if not has_kernel(native(p.dtype)):
        raise TypeError(
            f"parameter {i} must hold floats, got dtype {p.dtype}: float32, float64, float16 and "
            "bfloat16 can be stepped"
        )
    if not p.flags.writeable:
        raise ValueError(f"parameter {i} must be writeable")
    if type(g) is not np.ndarray or g.dtype != p.dtype:
        g = as_real_array(g, f"gradient {i}")
    if g.shape != p.shape:
        raise ValueError(f"gradient {i} must have shape {p.shape}, got {g.shape}")
    dtype = native(p.dtype) if g.dtype == p.dtype else wide_dtype(p.dtype)
    flat = np.ascontiguousarray(g, dtype).reshape(-1)
    if np.may_share_memory(p, flat) or not flat.flags.aligned:
        flat = flat.copy()
    return p, flat


def _move(p: Array, g: Array, gradient: Array, arrays: Mapping[str, Array]) -> Move:
    """What a step does with a parameter whose gradient has been checked."""
    master = arrays.get("master")
    if master is not None and gradient.dtype.itemsize > 2:
        # The rule changes the master copy alone: the gradient has more digits than `p`.
        return Move(p, g, master, gradient, arrays, False, None)
    in_place = p.flags.carray and p.dtype.isnative
    flat = p if in_place else np.array(p, native(p.dtype), order="C")
    return Move(p, g, flat.reshape(-1), gradient, arrays, in_place, master)


def _start_again(p: Array, master: Array) -> None:
    """Set the master copy to `p` where someone else has changed that."""
    flat = p.reshape(-1)
    with np.errstate(all="ignore"):
        changed = flat != master.astype(p.dtype)
    np.copyto(master, flat, where=changed, casting="unsafe")


def _same_memory(a: Array, b: Array) -> bool:
    """Whether two arrays of the same shape and dtype are views of the same elements."""
    if a is b or a.size == 0:
        return True
    at, before = a.__array_interface__["data"], b.__array_interface__["data"]
    return a.strides == b.strides and bool(at[0] == before[0])
