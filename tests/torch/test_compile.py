"""Dropout under torch.compile, and as operators."""

from __future__ import annotations

import pytest

from support import require

torch = require("torch")
from torch import library, nn
from torch.func import grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

import dropwise.torch as dt
from dropwise.torch import _ops, _streams
from dropwise.torch import functional as F

X = torch.ones(500)
# All of torch.compile but the generation of C++, which takes seconds: Dynamo, the graphs of forward
# and backward and what merges equal steps in them.
BACKEND = "aot_eager_decomp_partition"


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function, backend=BACKEND, **options):
    return torch.compile(function, fullgraph=True, backend=backend, **options)


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("noise_shape", [None, [3, 4, 1]])
@pytest.mark.parametrize("transposed", [False, True])
def test_opcheck_of_dropout(dtype, noise_shape, transposed, requires_grad):
    x = torch.randn(3, 4, 5).to(dtype)
    if transposed:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    x.requires_grad_(requires_grad)
    draw = torch.tensor([-5, 6])
    library.opcheck(_ops.dropout, (x, draw, 0.3, 7, noise_shape))


@pytest.mark.parametrize("by_rank", [True, False])
def test_opcheck_of_next_stream(by_rank):
    library.opcheck(_ops.next_stream, (_streams.new_state(2**64 - 1, 5), by_rank))


@pytest.mark.parametrize("seed", [None, 1])
def test_two_dropouts_in_one_graph_have_two_masks(seed):
    first, second = dt.Dropout(0.5, seed=seed), dt.Dropout(0.5, seed=seed and 2)
    once, twice = (
        compiled(lambda x: (first(x), second(x))),
        compiled(lambda x: (first(x), first(x))),
    )
    for call in (once, twice):
        for x in (X, X.clone().requires_grad_()):
            a, b = call(x)
            assert 0.3 < (a != b).float().mean() < 0.7
            if x.requires_grad:
                da, db = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in (a, b))
                assert torch.equal(da, a)
                assert torch.equal(db, b)


@pytest.mark.parametrize("seed", [None, 1])
def test_five_forwards_then_five_backwards(seed):
    call = compiled(dt.Dropout(0.5, seed=seed))
    x = X.clone().requires_grad_()
    passes = [call(x) for _ in range(5)]
    assert len({tuple(y.tolist()) for y in passes}) == 5
    for y in passes:
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y)


SHAPES = {
    dt.Dropout: (500,),
    dt.Dropout1d: (20, 25, 2),
    dt.Dropout2d: (20, 25, 2, 2),
    dt.Dropout3d: (20, 25, 2, 2, 1),
    dt.DropPath: (500, 2),
    dt.AlphaDropout: (500,),
    dt.FeatureAlphaDropout: (20, 25, 2),
}


@pytest.mark.parametrize("module", SHAPES)
def test_a_compiled_seed_has_the_masks_of_an_eager_one(module):
    eager, other = module(0.5, seed=1), module(0.5, inplace=True, seed=1)
    call = compiled(other)
    x = torch.randn(SHAPES[module])
    for _ in range(2):
        torch.testing.assert_close(call(x.clone()), eager(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(other._state, eager._state)


def test_shapes_rates_and_offsets_may_change_from_call_to_call():
    @compiled
    def call(x, p, row_offset):
        return F.dropout(x, p, row_offset=row_offset)

    for rows, p in ((300, 0.1), (400, 0.3), (500, 0.5), (600, 0.7)):
        y = call(torch.ones(rows, 3), p, 4 * rows)
        assert abs((y == 0).float().mean() - p) < 0.1  # more than 4 sigma at the least size


def test_many_seeds_share_one_compilation():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    modules = [dt.Dropout(0.5, seed=seed) for seed in range(12)]
    for module in modules:
        compiled(module, backend)(X)
    assert len(graphs) == 1
    assert len({tuple(module(X).tolist()) for module in modules}) == 12


def test_checkpointing_inside_a_compiled_function():
    drop = dt.Dropout(0.5)

    @compiled
    def call(x, weight):
        return checkpoint(lambda x, w: drop(x) * w, x, weight, use_reentrant=False)

    weight = X.clone().requires_grad_()
    y = call(X, weight)
    y.sum().backward()
    assert torch.equal(weight.grad, y)  # of the recomputed activations
    assert y.unique().tolist() == [0.0, 2.0]


def test_checkpointing_of_a_seed_inside_a_compiled_function_is_refused():
    drop = dt.Dropout(0.5, seed=1)
    call = compiled(lambda x: checkpoint(lambda x: drop(x).sin(), x, use_reentrant=False))
    y = call(X.clone().requires_grad_())
    # PyTorch says the same, where it compares the version of the state first.
    with pytest.raises(RuntimeError, match=r"activation checkpointing|modified by an inplace"):
        y.sum().backward()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_around_a_compiled_module(use_reentrant):
    weight = X.clone().requires_grad_()
    call = compiled(dt.Dropout(0.5))
    y = checkpoint(lambda x, w: call(x) * w, X, weight, use_reentrant=use_reentrant)
    y.sum().backward()
    assert torch.equal(weight.grad, y)


def test_vmap_inside_a_compiled_function_honours_its_randomness():
    drop = dt.Dropout(0.5)
    x = torch.ones(3, 500)
    same = compiled(lambda x: vmap(drop, randomness="same")(x))(x)
    assert torch.equal(same[0], same[1])
    different = compiled(lambda x: vmap(drop, randomness="different")(x))(x)
    assert 0.3 < (different[0] != different[1]).float().mean() < 0.7  # 9 sigma


@pytest.mark.parametrize(
    "derivative",
    [lambda f, x: jvp(f, (x,), (x,))[1], lambda f, x: grad(lambda x: f(x).sum())(x)],
    ids=["jvp", "grad"],
)
def test_derivatives_inside_a_compiled_function_raise(derivative):
    drop = dt.Dropout(0.5)
    with pytest.raises(RuntimeError, match=r"inside torch\.compile is not supported"):
        compiled(lambda x: derivative(drop, x))(X)
    # In parts: the derivative is that of the eager mode.
    y = torch.compile(lambda x: derivative(drop, x), backend=BACKEND)(X)
    assert y.unique().tolist() == [0.0, 2.0]


def test_what_is_compiled_inside_a_derivative():
    drop = dt.Dropout(0.5)
    y = X.clone().requires_grad_()
    compiled(lambda x: drop(x).sum())(y).backward()
    assert y.grad.unique().tolist() == [0.0, 2.0]


@pytest.mark.slow
def test_inductor_gives_the_bits_of_eager_mode_with_its_generator():
    net = nn.Sequential(nn.Linear(20, 20), dt.Dropout(0.5), nn.ReLU(), dt.Dropout2d(0.2))
    x = torch.randn(4, 20, 20, requires_grad=True)

    def run(call):
        torch.manual_seed(1)
        with torch.autocast("cpu", enabled=False), pytest.warns(UserWarning, match="dropout2d"):
            y = call(x)
        return y, torch.autograd.grad(y.sum(), x)[0]

    y, dx = run(net)
    with torch._inductor.config.patch(fallback_random=True):
        compiled_y, compiled_dx = run(compiled(net, "inductor"))
    torch.testing.assert_close(compiled_y, y)
    torch.testing.assert_close(compiled_dx, dx)
    assert torch.equal(compiled_y == 0, y == 0)
