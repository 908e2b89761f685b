"""Dropout under the transforms of torch.func, and seen by what traces."""

from __future__ import annotations

import pytest

from support import require

torch = require("torch")
from torch import nn
from torch.func import functional_call, grad, hessian, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import dropwise.torch as dt
from dropwise.torch import _autograd
from dropwise.torch._tensors import Mask

MASK = Mask(0.4, 1, 2, 3)
SHAPED = {
    dt.Dropout: (300,),
    dt.Dropout1d: (300, 2),
    dt.DropPath: (300, 2),
    dt.AlphaDropout: (300,),
    dt.FeatureAlphaDropout: (30, 10, 2),
}


@pytest.mark.parametrize("module", SHAPED)
def test_vmap_honours_its_randomness(module):
    drop = module(0.5)
    x = torch.ones(3, *SHAPED[module])
    same = vmap(drop, randomness="same")(x)
    assert torch.equal(same[0], same[1])
    assert same.unique().numel() == 2
    different = vmap(drop, randomness="different")(x)
    assert 0.3 < (different[0] != different[1]).float().mean() < 0.7
    for dim in (0, 1):
        batched = vmap(drop, in_dims=dim, out_dims=dim, randomness="same")(x.movedim(0, dim))
        assert torch.equal(batched.movedim(dim, 0)[0], batched.movedim(dim, 0)[2])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(drop)(x)


def test_vmap_over_a_random_draw_alone():
    drop = dt.Dropout(0.5)
    x = torch.ones(300)
    y = vmap(lambda scale: scale * drop(x), randomness="different")(torch.ones(4))
    assert len({tuple(row) for row in y.tolist()}) == 4


def test_a_given_mask_is_the_same_for_all_samples_under_vmap():
    x = torch.randn(4, 5, 6)
    expected = torch.stack([_autograd.dropout(sample, MASK) for sample in x])
    assert torch.equal(vmap(lambda x: _autograd.dropout(x, MASK))(x), expected)
    twice = vmap(vmap(lambda x: _autograd.dropout(x, MASK)))(x)
    assert torch.equal(twice[2, 3], _autograd.dropout(x[2, 3], MASK))


def test_gradients_per_sample_have_the_mask_of_their_sample():
    drop = dt.Dropout(0.5)

    def loss(x):
        y = drop(x)
        return (y * y.detach()).sum(), y

    x = torch.ones(4, 300)
    for randomness in ("same", "different"):
        dx, y = vmap(grad(loss, has_aux=True), randomness=randomness)(x)
        assert torch.equal(dx, 2 * y)


def test_nested_transforms():
    def cubes(x):
        return (_autograd.dropout(x, MASK) ** 3).sum()

    x = torch.arange(1.0, 7.0)
    y = _autograd.dropout(x, MASK)
    scale = torch.where(y != 0, y / x, 0.0)
    torch.testing.assert_close(hessian(cubes)(x), torch.diag(6 * y * scale**2))
    tangent = torch.randn(6)
    _, forward_over_reverse = jvp(grad(cubes), (x,), (tangent,))
    torch.testing.assert_close(forward_over_reverse, 6 * y * scale**2 * tangent)


def test_jvp_gives_the_dropout_of_the_tangent():
    y, tangent = jvp(dt.Dropout(0.5), (torch.ones(300),), (torch.full((300,), 3.0),))
    assert torch.equal(tangent, 3 * y)
    assert y.unique().numel() == 2


def test_an_ensemble_of_models():
    models = [nn.Sequential(nn.Linear(8, 300), dt.Dropout(0.5)) for _ in range(3)]
    state = stack_module_state(models)

    def call(parameters, buffers, x):
        return functional_call(models[0], (parameters, buffers), (x,))

    y = vmap(call, in_dims=(0, 0, None), randomness="different")(*state, torch.ones(8))
    zeros = y == 0
    assert not torch.equal(zeros[0], zeros[1])


def test_a_seed_works_under_grad_and_is_refused_under_vmap():
    drop = dt.Dropout(0.5, seed=1)
    dx = grad(lambda x: drop(x).sum())(torch.ones(9))
    assert torch.equal(dx, dt.Dropout(0.5, seed=1)(torch.ones(9)))
    with pytest.raises(RuntimeError, match=r"seed=int cannot run inside torch\.vmap"):
        vmap(drop, randomness="same")(torch.ones(3, 9))


def test_a_tensor_that_left_its_transform_is_taken():
    left = []
    grad(lambda x: left.append(x * 1) or x.sum())(torch.ones(9))
    assert dt.Dropout(0.5, seed=1)(left[0]).unique().tolist() == [0.0, 2.0]


def test_make_fx_keeps_dropout_as_a_step():
    drop = dt.Dropout(0.5)
    x = torch.ones(300)
    torch.manual_seed(0)
    expected = drop(x)
    for mode in ("real", "fake"):
        graph = make_fx(drop, tracing_mode=mode)(x)
        assert not torch.equal(graph(x), graph(x))  # the mask is none of its constants
        torch.manual_seed(0)
        assert torch.equal(graph(x), expected)
