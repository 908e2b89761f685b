"""What an optimizer keeps: binding, failures, copies, states."""

from __future__ import annotations

import copy
import io
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

import dropwise as dw
from dropwise._backends import active
from dropwise.optimizers import base, state
from test_optimizers import OPTIMIZERS

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = [(3, 4), (5,), ()]
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda o: pickle.loads(pickle.dumps(o)),
}


@pytest.fixture(params=OPTIMIZERS)
def make(request):
    return OPTIMIZERS[request.param]


@pytest.fixture(params=[np.float16, BFLOAT16, np.float32, np.float64], ids=str)
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=COPIES)
def duplicate(request):
    return COPIES[request.param]


def parameters(dtype=np.float32, shapes=SHAPES):
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def steps(optimizer, ps, seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        optimizer.step([(p, rng.standard_normal(p.shape).astype(p.dtype)) for p in ps])


def assert_same_state(a, b):
    assert list(a) == list(b)
    for name, value in a.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == b[name].dtype
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def assert_untouched(optimizer, ps, action, error, message):
    """`action` raises, and neither the state nor a parameter has changed."""
    before, values = optimizer.state_dict(), [p.copy() for p in ps]
    with pytest.raises(error, match=message):
        action()
    assert_same_state(before, optimizer.state_dict())
    for p, value in zip(ps, values, strict=True):
        np.testing.assert_array_equal(p, value)


# ---- whose parameters --------------------------------------------------------------------------


def others(ps):
    """name: parameters that are others, what the message says."""
    yield [p.copy() for p in ps], "parameter 0 was another array"
    yield [*ps[:2], ps[2].copy()], "parameter 2 was another array"
    yield ps[:2], "has stepped 3 parameters before, got 2"
    yield [*ps, ps[0].copy()], "has stepped 3 parameters before, got 4"
    yield [], "has stepped 3 parameters before, got 0"
    shape = re.escape(
        f"{ps[0].dtype.name} (3, 4) in the steps before, got {ps[0].dtype.name} (4, 3)"
    )
    yield [ps[0].reshape(4, 3), *ps[1:]], f"parameter 0 was {shape}"
    yield [ps[0][::-1], *ps[1:]], "parameter 0 was another array"
    other = np.dtype(np.float32 if ps[1].dtype != np.float32 else np.float16)
    yield [ps[0], ps[1].astype(other), ps[2]], f"parameter 1 was .* got {other.name}"
    yield [ps[0], ps[1][:4], ps[2]], r"parameter 1 was .* got .* \(4,\)"


def test_a_second_set_of_parameters_is_refused_before_anything_moves(make, dtype):
    optimizer, ps = make(), parameters(dtype)
    steps(optimizer, ps, range(3))
    for qs, message in others(ps):
        action = lambda qs=qs: steps(optimizer, qs, [9])  # noqa: E731
        assert_untouched(optimizer, [*ps, *qs], action, ValueError, f"{message}.*reset\\(\\)")
    steps(optimizer, ps, [3])
    assert optimizer.iterations == 4


def test_a_new_view_of_the_same_memory_is_the_same_parameter(make, dtype):
    optimizer, whole, ps = make(), make(), parameters(dtype)
    qs = [p.copy() for p in ps]
    for i in range(4):
        steps(optimizer, [p[...] for p in ps], [i])
        steps(whole, qs, [i])
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_array_equal(p, q)


def test_an_address_is_not_used_again_for_other_parameters():
    adam = dw.Adam()
    for _ in range(2):
        p = np.ones(1000)
        if adam.iterations:
            with pytest.raises(ValueError, match="another array"):
                adam.step([(p, p.copy())])
        else:
            adam.step([(p, p.copy())])
        del p


def test_reset_starts_anew(make, dtype):
    optimizer, ps = make(), parameters(dtype)
    steps(optimizer, ps, range(3))
    optimizer.reset()
    assert optimizer.state_dict() == make().state_dict()
    qs, rs = parameters(dtype, [(2, 2)]), parameters(dtype, [(2, 2)])
    steps(optimizer, qs, range(3))
    fresh = make()
    steps(fresh, rs, range(3))
    np.testing.assert_array_equal(qs[0], rs[0])


def test_unbind_takes_the_state_to_other_arrays_that_fit(make, dtype):
    optimizer, whole, ps = make(), make(), parameters(dtype)
    qs = [p.copy() for p in ps]
    steps(whole, qs, range(6))
    steps(optimizer, ps, range(3))
    rs = [p.copy() for p in ps]
    optimizer.unbind()
    steps(optimizer, rs, range(3, 6))
    for q, r in zip(qs, rs, strict=True):
        np.testing.assert_array_equal(q, r)


def test_gradients_may_be_new_arrays_or_views_in_each_step(make, dtype):
    whole = np.zeros((3, 5), dtype)
    kept, fresh, w, v = make(), make(), np.ones(5, dtype), np.ones(5, dtype)
    for i in range(6):
        whole[1] = i - 2
        kept.step([(w, whole[1] if i < 3 else whole[1][:])])
        fresh.step([(v, whole[1].astype(np.float64).tolist())])
    np.testing.assert_array_equal(w, v)


# ---- what a step refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda p: (p, p.astype(complex)), TypeError, "gradient 1 must hold real numbers, got"),
        (lambda p: (p, p.astype(str)), TypeError, "gradient 1 must hold real numbers"),
        (lambda p: (p, np.ma.masked_array(p)), TypeError, "gradient 1 .* masked"),
        (lambda p: (p, np.ones(4)), ValueError, r"gradient 1 must have shape \(5,\), got \(4,\)"),
        (lambda p: (p, np.ones((5, 1))), ValueError, r"shape \(5,\), got \(5, 1\)"),
        (lambda p: (p, np.ones(())), ValueError, r"shape \(5,\), got \(\)"),
        (lambda p: (p, None), TypeError, "gradient 1 must hold real numbers, got dtype object"),
        (lambda p: (p.astype(int), p), TypeError, "parameter 1 must hold floats, got dtype int64"),
        (lambda p: (p.astype(complex), p), TypeError, "parameter 1 must hold floats"),
        (lambda p: (p.tolist(), p), TypeError, "parameter 1 must be an ndarray, got list"),
        (lambda p: (np.ma.masked_array(p), p), TypeError, "parameter 1 .* got MaskedArray"),
        (lambda p: p, TypeError, r"pairs \(parameters, gradient\)"),
        (lambda p: (np.broadcast_to(p[:1], 5), p), ValueError, "parameter 1 must be writeable"),
    ],
)
@pytest.mark.parametrize("when", [0, 2])
def test_a_bad_pair_is_refused_before_the_first_one_moves(make, bad, error, message, when):
    optimizer, ps = make(), parameters(np.float64)
    steps(optimizer, ps, range(when))
    pairs = [(p, np.ones(p.shape)) for p in ps]
    pairs[1] = bad(ps[1])
    assert_untouched(optimizer, ps, lambda: optimizer.step(pairs), error, message)
    if when == 0:  # bound to nothing yet
        steps(optimizer, parameters(shapes=[(2,)]), [0])


def test_a_parameter_that_became_readonly_is_refused(make):
    optimizer, ps = make(), parameters()
    pairs = [(p, np.ones_like(p)) for p in ps]
    optimizer.step(pairs)
    optimizer.step(pairs)
    ps[1].flags.writeable = False
    assert_untouched(
        optimizer, ps, lambda: optimizer.step(pairs), ValueError, "1 must be writeable"
    )


# ---- failures ----------------------------------------------------------------------------------


def refuse_memory(monkeypatch, nth):
    """Let the nth allocation of a step fail."""
    count = iter(range(1000))

    def failing(function):
        def call(*args, **kwargs):
            if next(count) == nth:
                raise MemoryError
            return function(*args, **kwargs)

        return call

    class Refusing:
        def __getattr__(self, name):
            function = getattr(np, name)
            allocates = name in ("zeros", "empty", "array", "ascontiguousarray")
            return failing(function) if allocates else function

    monkeypatch.setattr(base, "np", Refusing())
    monkeypatch.setattr(state, "np", Refusing())


@pytest.mark.parametrize("when", [0, 2])
def test_no_memory_leaves_everything_as_it_was(make, dtype, when, monkeypatch):
    optimizer, whole, ps, qs = make(), make(), parameters(dtype), parameters(dtype)
    steps(optimizer, ps, range(when))
    failures = 0
    for nth in range(30):
        with monkeypatch.context() as patch:
            refuse_memory(patch, nth)
            before, values = optimizer.state_dict(), [p.copy() for p in ps]
            try:
                steps(optimizer, ps, [when])
            except MemoryError:
                failures += 1
            else:
                break
        assert_same_state(before, optimizer.state_dict())
        for p, value in zip(ps, values, strict=True):
            np.testing.assert_array_equal(p, value)
    assert failures >= 3
    steps(whole, qs, range(when + 1))
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_array_equal(p, q)
    assert optimizer.iterations == when + 1


@pytest.mark.parametrize("failure", [MemoryError, KeyboardInterrupt])
def test_a_step_left_in_the_middle_is_not_gone_on_with(make, duplicate, failure, monkeypatch):
    optimizer, ps = make(), parameters()
    steps(optimizer, ps, range(2))
    saved = optimizer.state_dict()
    with monkeypatch.context() as patch:
        backend = active()
        for name, rule in (("adam_step", backend.adam_step), ("sgd_step", backend.sgd_step)):

            def fail_second(parameters, scalars, rule=rule):
                rule(parameters[:1], scalars)
                raise failure

            patch.setattr(backend, name, fail_second)
        with pytest.raises(failure):
            steps(optimizer, ps, [2])
    assert optimizer.iterations == 2
    for torn in (optimizer, duplicate(optimizer)):
        for action in (lambda torn=torn: steps(torn, ps, [2]), torn.state_dict):
            with pytest.raises(RuntimeError, match="left in the middle"):
                action()
        torn.load_state_dict(saved)
        steps(torn, ps, [2])
        torn._torn = True
        torn.reset()
        steps(torn, ps, [2])


# ---- copies ------------------------------------------------------------------------------------


def test_a_copy_goes_on_by_itself(make, dtype, duplicate):
    optimizer, whole, ps = make(), make(), parameters(dtype)
    want = [p.copy() for p in ps]
    steps(whole, want, range(8))
    steps(optimizer, ps, range(4))
    other = duplicate(optimizer)
    assert_same_state(optimizer.state_dict(), other.state_dict())
    assert other.config() == optimizer.config()
    qs = [p.copy() for p in ps]
    steps(other, qs, range(4, 8))
    steps(optimizer, ps, range(4, 8))
    for p, q, w in zip(ps, qs, want, strict=True):
        np.testing.assert_array_equal(p, w)
        np.testing.assert_array_equal(q, w)


def test_a_copy_takes_only_parameters_that_fit(make, dtype, duplicate):
    optimizer, ps = make(), parameters(dtype)
    steps(optimizer, ps, range(2))
    other = duplicate(optimizer)
    other_dtype = np.float64 if dtype == np.float32 else np.float32
    for qs in (parameters(dtype, [(4, 3), (5,), ()]), parameters(other_dtype), ps[:2]):
        action = lambda qs=qs: steps(other, qs, [2])  # noqa: E731
        assert_untouched(other, qs, action, ValueError, "before, got .*reset")
    steps(other, [p.copy() for p in ps], [2])


def test_a_pickle_holds_no_parameters():
    adam, p = dw.Adam(), np.zeros(100_000, np.float32)
    adam.step([(p, p.copy())])
    assert len(pickle.dumps(adam)) < 2.1 * p.nbytes


# ---- states ------------------------------------------------------------------------------------


def through_a_file(state):
    """Arrays as np.load gives them, numbers and strings as JSON does."""
    arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
    file = io.BytesIO()
    np.savez(file, **{k.replace(".", "_"): v for k, v in arrays.items()})
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        return {k: loaded[k.replace(".", "_")] if k in arrays else v for k, v in state.items()}


def test_a_state_continues_where_it_was_taken(make, dtype):
    optimizer, whole, other, ps = make(), make(), make(), parameters(dtype)
    want = [p.copy() for p in ps]
    steps(whole, want, range(8))
    steps(optimizer, ps, range(4))
    state = optimizer.state_dict()
    assert {type(v) for v in state.values()} <= {str, int, np.ndarray}
    qs = [p.copy() for p in ps]
    steps(optimizer, ps, [99])  # the state is a copy
    other.load_state_dict(through_a_file(state))
    state.clear()
    steps(other, qs, range(4, 8))
    assert other.iterations == 8
    assert_same_state(other.state_dict(), whole.state_dict())
    for q, w in zip(qs, want, strict=True):
        np.testing.assert_array_equal(q, w)


def test_a_loaded_state_is_a_copy(make):
    optimizer, ps = make(), parameters()
    steps(optimizer, ps, range(2))
    state = optimizer.state_dict()
    other = make()
    other.load_state_dict(state)
    kept = copy.deepcopy(state)
    steps(other, [p.copy() for p in ps], [2])
    assert_same_state(state, kept)


def test_the_state_of_an_optimizer_that_has_not_stepped_is_none_of_its_parameters(make):
    assert make().state_dict() == {"class": type(make()).__name__, "iterations": 0}
    optimizer = make()
    optimizer.load_state_dict(make().state_dict())
    steps(optimizer, parameters(), [0])


def without(name):
    return lambda s: s.pop(name)


def changed(name, value):
    return lambda s: s.__setitem__(name, value(s[name]) if callable(value) else value)


WRONG_STATES = [
    (without("class"), "missing: class; unexpected: none"),
    (without("iterations"), "missing: iterations;"),
    (without("parameter.1"), "missing: parameter.1"),
    (without("mean.0"), "missing: mean.0; unexpected: none"),
    (without("master.2"), "missing: master.2; unexpected: none"),
    (changed("velocity.0", np.zeros((3, 4))), "missing: none; unexpected: velocity.0"),
    (changed("mean.7", np.zeros(2)), "missing: parameter.3, .*unexpected: mean.7"),
    (changed("momentum", 0.9), "unexpected: momentum"),
    (changed(3, 0.9), "unexpected: 3"),
    (changed("class", "SGD"), "must be that of an optimizer 'Adam', got 'SGD'"),
    (changed("class", np.zeros(3)), "must be that of an optimizer 'Adam'"),
    (changed("iterations", -1), "iterations must be an integer of at least 0, got -1"),
    (changed("iterations", 1.5), "iterations must be an integer of at least 0, got 1.5"),
    (changed("iterations", True), "iterations must be an integer of at least 0, got True"),
    (changed("iterations", "4"), "iterations must be an integer of at least 0, got '4'"),
    (changed("parameter.0", "float32"), "parameter.0 must be a dtype and a shape"),
    (changed("parameter.0", "int64 (3, 4)"), "parameter.0 must be a dtype and a shape"),
    (changed("parameter.0", "float32 (3,4)"), "parameter.0 must be a dtype and a shape"),
    (changed("parameter.0", 5), "parameter.0 must be a dtype and a shape"),
    (changed("parameter.0", "float16 (4, 3)"), r"mean.0 must be float32 of shape \(4, 3\), got"),
    (changed("parameter.0", "float16 (99999999999999999, 4)"), "mean.0 must be float32 of shape"),
    (changed("mean.1", lambda a: a.astype(complex)), "mean.1 must be float32 .* got complex128"),
    (changed("mean.1", lambda a: a.astype(np.float64)), "mean.1 must be float32 .* got float64"),
    (changed("mean.1", lambda a: a[:4]), r"mean.1 must be .* \(5,\), got float32 of shape \(4,\)"),
    (changed("mean.1", lambda a: a.tolist()), "mean.1 must be .* got list"),
    (changed("mean.1", lambda a: a.astype(str)), "mean.1 must be .* got <U"),
    (changed("square.1", lambda a: -1 - a), "square.1 must not be negative"),
    (changed("master.0", lambda a: a.T), r"master.0 must be float32 of shape \(3, 4\), got"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG_STATES)
def test_a_wrong_state_is_refused_and_nothing_is_loaded(spoil, message):
    optimizer, other = dw.Adam(), dw.Adam()
    steps(optimizer, parameters(np.float16), range(2))
    ps = parameters(np.float16)
    steps(other, ps, range(3))
    wrong = optimizer.state_dict()
    spoil(wrong)
    action = lambda: other.load_state_dict(wrong)  # noqa: E731
    assert_untouched(other, ps, action, ValueError, message)
    steps(other, ps, [3])  # still bound to its parameters


@pytest.mark.parametrize("give", OPTIMIZERS)
@pytest.mark.parametrize("take", OPTIMIZERS)
def test_the_state_of_another_kind_of_optimizer_is_refused(give, take):
    giver, taker, ps = OPTIMIZERS[give](), OPTIMIZERS[take](), parameters()
    steps(giver, parameters(), range(2))
    steps(taker, ps, range(2))
    kind = {"sgd": "SGD", "momentum": "momentum", "nesterov": "momentum"}
    if kind.get(give, "Adam") == kind.get(take, "Adam"):
        taker.load_state_dict(giver.state_dict())
        return
    action = lambda: taker.load_state_dict(giver.state_dict())  # noqa: E731
    assert_untouched(taker, ps, action, ValueError, "state must")


@pytest.mark.parametrize("wrong", [None, [1], "state", 3])
def test_a_state_that_is_no_mapping_is_refused(make, wrong):
    with pytest.raises(TypeError, match="state must be a mapping, got"):
        make().load_state_dict(wrong)


def test_many_wrong_names_are_counted_and_not_all_listed():
    state = {"class": "Adam", "iterations": 0} | {f"x{i}": i for i in range(100)}
    with pytest.raises(ValueError, match=r"unexpected: x0, .*x7 and 92 more$"):
        dw.Adam().load_state_dict(state)
