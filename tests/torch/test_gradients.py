"""Gradients, gradients of gradients, tangents: all are the same dropout of another tensor."""

from __future__ import annotations

import copy

import pytest

from support import require

torch = require("torch")
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import dropwise.torch as dt
from dropwise.torch import _autograd, _tensors
from dropwise.torch import functional as F

LARGE = _autograd._KEEP_BITS  # elements from which on the mask is kept
FUNCTIONS = [F.dropout, F.dropout1d, F.drop_path, F.alpha_dropout, F.feature_alpha_dropout]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_are_right_in_all_modes(function, backend):
    def with_one_mask(x):
        return function(x, 0.4, True, state=F.new_state(1))

    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    modes = {"check_batched_grad": True, "check_forward_ad": True}
    assert gradcheck(with_one_mask, x, check_batched_forward_grad=True, **modes)
    assert gradgradcheck(with_one_mask, x, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("n", [1000, LARGE])
def test_the_backward_pass_has_the_mask_of_its_forward(n):
    drop = dt.Dropout(0.3)
    x = torch.ones(n, requires_grad=True)
    passes = [drop(x) for _ in range(5)]
    for y in passes:
        (dx,) = torch.autograd.grad(y, x, torch.ones(n))
        assert torch.equal(dx, y)
    assert not torch.equal(passes[0], passes[1])


@pytest.mark.parametrize("n", [1000, LARGE])
@pytest.mark.parametrize("dtype", _tensors.DTYPES, ids=str)
def test_gradients_of_any_layout_and_dtype(n, dtype):
    x = torch.ones(n, dtype=dtype, requires_grad=True)
    y = dt.Dropout(0.3)(x)
    wide = torch.randn(2, n).to(dtype)
    for dy in (wide[0], wide.T.contiguous()[:, 1], wide[0, :1].expand(n)):
        (dx,) = torch.autograd.grad(y, x, dy, retain_graph=True)
        assert torch.equal(dx, torch.where(y != 0, dy * y.max(), 0.0))


@pytest.mark.parametrize("n", [1000, LARGE])
def test_double_backward(n):
    x = torch.ones(n, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(n, dtype=torch.float64, requires_grad=True)
    y = dt.Dropout(0.3)(x)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    assert torch.equal(dx, y.detach() * dy)
    (ddy,) = torch.autograd.grad(dx.sum(), dy)
    assert torch.equal(ddy, y)


@pytest.mark.parametrize("n", [1000, LARGE])
def test_tangents_need_no_gradients(n):
    drop = dt.Dropout(0.3)
    with forward_ad.dual_level(), torch.no_grad():
        y = drop(forward_ad.make_dual(torch.ones(n), torch.full((n,), 2.0)))
        primal, tangent = forward_ad.unpack_dual(y)
    assert torch.equal(tangent, 2 * primal)


@pytest.mark.parametrize("n", [1000, LARGE])
def test_pytorch_finds_a_backward_by_the_private_names_that_are_overridden(n, monkeypatch):
    node = (_autograd._Replayed if n < LARGE else _autograd._Kept)._backward_cls
    assert "apply" in vars(torch.autograd.function.BackwardCFunction)
    monkeypatch.setattr(node, "apply", lambda ctx, dy: (3 * dy, None))
    x = torch.ones(n, requires_grad=True)
    dt.Dropout(0.3)(x).sum().backward()
    assert torch.equal(x.grad, torch.full((n,), 3.0))


def saved(function, *arguments):
    """What `function` keeps for backward by `save_for_backward`."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        function(*arguments)
    return kept


def test_a_mask_that_is_kept_takes_a_bit_for_each_element():
    drop = dt.Dropout(0.3)
    x = torch.ones(LARGE, requires_grad=True)
    (bits,) = saved(drop, x)
    assert (bits.dtype, bits.shape) == (torch.uint8, (LARGE // 8,))
    assert saved(drop, x[:1000]) == []
    assert saved(drop, x.detach()) == []
    with torch.no_grad():
        assert saved(drop, x) == []
    assert saved(dt.Dropout2d(0.3), x.view(2, 2, -1, 64)) == []


def test_without_gradients_there_is_no_graph():
    drop = dt.Dropout(0.5)
    x = torch.ones(9, requires_grad=True)
    with torch.no_grad():
        assert not drop(x).requires_grad
    assert not drop(x.detach()).requires_grad
    with torch.inference_mode():
        assert drop(torch.ones(9)).is_inference()
    assert drop(x).requires_grad


def test_what_a_hook_makes_of_the_kept_mask_is_used():
    x = torch.ones(LARGE, requires_grad=True)
    with torch.autograd.graph.save_on_cpu():
        y = dt.Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, 0.3, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("step", ["dropout", "feed-forward", "attention"])
def test_hooks_may_lay_out_what_is_saved_in_another_way(step):
    def strided(x):
        return torch.stack([x, x], -1)[..., 0]

    torch.manual_seed(0)
    if step == "dropout":
        model, x = nn.Sequential(nn.Dropout(0.5)), torch.ones(LARGE)
    elif step == "feed-forward":
        linear = [nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64)]
        model, x = nn.Sequential(*linear, nn.Dropout(0.5)), torch.randn(300, 64)
    else:
        model, x = SelfAttention(), torch.randn(3, 40, 32)
    dt.convert(model, seed=1)
    x.requires_grad_()
    results = []
    for unpack in (lambda x: x, strided):
        model_now = copy.deepcopy(model)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x, unpack):
            y = model_now(x)
        results.append(torch.autograd.grad(y.square().sum(), [x, *model_now.parameters()]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
