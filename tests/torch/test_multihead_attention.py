"""MultiheadAttention: the values and gradients of float64 steps with the same mask, and PyTorch's
own results where nothing is dropped at random.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

import dropwise.functional as dwf
from support import require

torch = require("torch")
from torch import nn

import dropwise.torch as dt
from dropwise.torch import _attention
from dropwise.torch._attention import Layout, attend
from dropwise.torch._tensors import Mask

B, L, S, E, H = 3, 9, 13, 24, 4


def attention_of(rate: float = 0.3, **options) -> dt.MultiheadAttention:
    torch.manual_seed(0)
    return dt.MultiheadAttention(E, H, dropout=rate, **options)


def inputs_of(
    which: str, *, batch_first: bool, dtype: torch.dtype = torch.float32, **sizes
) -> list:
    """Query, key and value: one tensor, two, or three."""
    torch.manual_seed(1)
    shape = lambda n, e: (B, n, e) if batch_first else (n, B, e)  # noqa: E731
    query = torch.randn(shape(L, E), dtype=dtype, requires_grad=True)
    if which == "self":
        return [query] * 3
    key = torch.randn(shape(S, sizes.get("kdim", E)), dtype=dtype, requires_grad=True)
    if which == "cross":
        return [query, key, key]
    value = torch.randn(shape(S, sizes.get("vdim", E)), dtype=dtype, requires_grad=True)
    return [query, key, value]


def in_steps(attention, query, key, value, kept, additive=None):
    """The attention of a module in PyTorch's functions, with a known mask [B, H, L, S]."""
    if not attention.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    if attention.in_proj_weight is None:
        weights = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
    else:
        weights = attention.in_proj_weight.chunk(3)
    biases = (0, 0, 0) if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
    q, k, v = (
        (x @ w.T + b).unflatten(-1, (H, E // H)).transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    scores = q @ k.mT / (E // H) ** 0.5
    if additive is not None:
        scores = scores + additive
    p = torch.softmax(scores, -1).nan_to_num(0.0)
    scale = 1 / (1 - attention.dropout) if attention.dropout < 1 else 0
    y = ((p * kept * scale) @ v).transpose(1, 2).flatten(2)
    y = attention.out_proj(y)
    return y if attention.batch_first else y.transpose(0, 1)


def next_mask(rate: float, shape: tuple[int, ...]) -> torch.Tensor:
    """The mask that the next draw from PyTorch's generator gives."""
    with torch.random.fork_rng():
        key, stream = torch.randint(1 << 56, (2,)).tolist()
    return torch.from_numpy(dwf.dropout_mask(shape, rate, key=key, stream=stream))


def check(attention, inputs: list, additive=None, **masks) -> None:
    """Compare the result and all gradients with those of float64 steps."""
    wide = copy.deepcopy(attention).double()
    doubled = {id(x): x.detach().double().requires_grad_() for x in inputs}
    keys = inputs[1].shape[1 if attention.batch_first else 0]
    kept = next_mask(attention.dropout, (B, H, L, keys))
    expected = in_steps(wide, *(doubled[id(x)] for x in inputs), kept, additive)
    y, weights = attention(*inputs, need_weights=False, **masks)
    assert weights is None
    torch.testing.assert_close(y, expected.float(), rtol=1e-5, atol=1e-5)
    dy = torch.randn(y.shape)
    of = list({id(x): x for x in inputs}.values()) + list(attention.parameters())
    of_wide = list(doubled.values()) + list(wide.parameters())
    found = torch.autograd.grad(y, of, dy)
    for g, e in zip(found, torch.autograd.grad(expected, of_wide, dy.double()), strict=True):
        torch.testing.assert_close(g, e.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("which", ["self", "cross", "all"])
def test_values_and_gradients_are_those_of_the_steps(which, batch_first, rate, steps):
    attention = attention_of(rate, batch_first=batch_first)
    check(attention, inputs_of(which, batch_first=batch_first))
    assert len(steps()) == 1


def test_keys_and_values_may_have_sizes_of_their_own(steps):
    attention = attention_of(kdim=10, vdim=7, batch_first=True)
    check(attention, inputs_of("all", batch_first=True, kdim=10, vdim=7))
    assert len(steps()) == 1


def test_there_may_be_no_bias(steps):
    check(attention_of(bias=False), inputs_of("self", batch_first=False))
    assert len(steps()) == 1


INF = float("inf")


def blocked_at_random() -> torch.Tensor:
    blocked = torch.rand(L, S, generator=torch.Generator().manual_seed(3)) < 0.4
    blocked[:, 0] = False
    return blocked


def as_float(blocked: torch.Tensor) -> torch.Tensor:
    return torch.zeros(blocked.shape).masked_fill(blocked, -INF)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("in_floats", [False, True])
@pytest.mark.parametrize("kind", ["of all", "of each", "padding", "both"])
def test_masks(kind, in_floats, batch_first, steps):
    blocked = blocked_at_random()
    of_each = torch.stack([blocked.roll(i, 0) for i in range(B * H)])
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[1, 5:] = True
    padding[2, 1:3] = True
    masks = {
        "of all": {"attn_mask": blocked},
        "of each": {"attn_mask": of_each},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": blocked, "key_padding_mask": padding},
    }[kind]
    additive = torch.zeros(B, H, L, S)
    if "attn_mask" in masks:
        additive += as_float(blocked if kind != "of each" else of_each.view(B, H, L, S))
    if "key_padding_mask" in masks:
        additive += as_float(padding).view(B, 1, 1, S)
    if in_floats:
        slope = torch.linspace(-1, 1, S)  # a float mask is added
        masks = {name: as_float(mask) + slope for name, mask in masks.items()}
        additive += len(masks) * slope
    attention = attention_of(batch_first=batch_first)
    check(attention, inputs_of("cross", batch_first=batch_first), additive.double(), **masks)
    assert len(steps()) == 1


def test_a_causal_mask_is_that_of_pytorch(steps):
    attention = attention_of(batch_first=True)
    causal = nn.Transformer.generate_square_subsequent_mask(L)
    inputs = inputs_of("self", batch_first=True)
    check(attention, inputs, causal.double(), attn_mask=causal, is_causal=True)
    assert len(steps()) == 1


@pytest.mark.parametrize("masks", [{}, {"padded": 4}, {"blocked": True}])
def test_inputs_without_a_batch(masks, steps):
    attention = attention_of()
    query, key = torch.randn(L, E), torch.randn(S, E)
    given = {}
    if "padded" in masks:
        given["key_padding_mask"] = torch.arange(S) >= masks["padded"]
    if "blocked" in masks:
        given["attn_mask"] = torch.stack([blocked_at_random().roll(i, 0) for i in range(H)])
    torch.manual_seed(2)
    alone, _ = attention(query, key, key, need_weights=False, **given)
    if "padded" in masks:
        given["key_padding_mask"] = given["key_padding_mask"][None]
    torch.manual_seed(2)
    key = key[:, None]
    batch, _ = attention(query[:, None], key, key, need_weights=False, **given)
    assert torch.equal(alone, batch[:, 0])
    assert len(steps()) == 2


def test_a_query_that_may_attend_to_nothing_gets_what_pytorch_gives():
    # With a rate of next to nothing both drop nothing: a draw below it has a chance of 1e-9 each.
    theirs = nn.MultiheadAttention(E, H, dropout=1e-12, batch_first=True)
    ours = copy.deepcopy(theirs)
    dt.convert(ours)
    assert type(ours) is dt.MultiheadAttention
    blocked = blocked_at_random()[:, :L] | (torch.arange(L) == 2)[:, None]
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[1] = True
    for masks in ({"attn_mask": blocked}, {"key_padding_mask": padding}):
        results = []
        for attention in (theirs, ours):
            x = inputs_of("self", batch_first=True)[0]
            y, _ = attention(x, x, x, need_weights=False, **masks)
            (dx,) = torch.autograd.grad(y.square().sum(), x)
            results.append((y, dx))
        for found, expected in zip(*results[::-1], strict=True):
            assert found.isfinite().all()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype, steps):
    attention = attention_of(batch_first=True).to(dtype)
    x = inputs_of("self", batch_first=True, dtype=dtype)[0]
    wide = copy.deepcopy(attention).double()
    expected = in_steps(wide, *[x.detach().double()] * 3, next_mask(0.3, (B, H, L, L)))
    y, _ = attention(x, x, x, need_weights=False)
    assert y.dtype == dtype
    digits = {torch.float64: 1e-12, torch.float16: 1e-2, torch.bfloat16: 1e-1}[dtype]
    torch.testing.assert_close(y.double(), expected, rtol=digits, atol=digits)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.dtype == dtype
    assert len(steps()) == 1


def test_under_autocast_the_result_is_in_16_bits(steps):
    attention = attention_of(batch_first=True)
    x = inputs_of("self", batch_first=True)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = attention(x, x, x, need_weights=False)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad.dtype == torch.float32
    assert len(steps()) == 1


@pytest.fixture(params=["own products", "PyTorch's"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose products compute, whatever the size of the matrices."""
    small = 0 if request.param == "own products" else 1 << 30
    monkeypatch.setattr(_attention, "_SMALL", small)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("length", [8, 9])  # masks of heads that end on whole bytes, and not
@pytest.mark.parametrize("batch", [1, 5])
def test_no_mask_depends_on_the_number_of_threads(batch, length, monkeypatch):
    monkeypatch.setattr(_attention, "_PIECE", 300)
    x = torch.randn(batch, length, 3 * E, requires_grad=True)
    additive = torch.randn(batch, 1, length, length)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = attend([x], Layout(H, True), Mask(0.3, 1, 2, 0), additive)
            results.append([y, *torch.autograd.grad(y.square().sum(), x)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_and_their_gradients_agree_with_differences(parts, masked):
    torch.manual_seed(4)
    heads, size, length = 2, 3, 4
    widths = {1: [3], 2: [1, 2], 3: [1, 1, 1]}[parts]
    projected = [
        torch.randn(2, length, n * heads * size, dtype=torch.float64, requires_grad=True)
        for n in widths
    ]
    additive = None
    if masked:
        additive = torch.randn(length, length, dtype=torch.float64)
        additive[1] = -INF
        additive[2, :2] = -INF

    def attention(*projected):
        return attend(projected, Layout(heads, True), Mask(0.3, 5, 6, 0), additive)

    assert torch.autograd.gradcheck(attention, projected)
    assert torch.autograd.gradgradcheck(attention, projected)


def test_any_strides_of_the_gradient():
    attention = attention_of(batch_first=True)
    x = inputs_of("self", batch_first=True)[0]
    gradients = []
    for dy in (torch.tensor(0.5).expand(B, L, E), torch.full((B, L, E), 0.5)):
        torch.manual_seed(5)
        y, _ = attention(x, x, x, need_weights=False)
        gradients.append(torch.autograd.grad(y, x, dy)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant):
    from torch.utils.checkpoint import checkpoint

    attention = attention_of(batch_first=True)
    x = inputs_of("self", batch_first=True)[0]

    def call(x):
        return attention(x, x, x, need_weights=False)[0]

    gradients = []
    for run in (call, lambda x: checkpoint(call, x, use_reentrant=reentrant)):
        torch.manual_seed(6)
        x.grad = None
        run(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_a_seed_fixes_the_masks_and_rows_may_be_computed_apart():
    attention = attention_of(batch_first=True, seed=7)
    shard = copy.deepcopy(attention)
    shard.row_offset = 1
    x = torch.randn(B, L, E)
    first, _ = attention(x, x, x, need_weights=False)
    part, _ = shard(x[1:], x[1:], x[1:], need_weights=False)
    torch.testing.assert_close(part, first[1:])
    second, _ = attention(x, x, x, need_weights=False)
    assert not torch.equal(first, second)
    attention.reseed(7)
    assert torch.equal(attention(x, x, x, need_weights=False)[0], first)


def test_a_seed_is_restored_with_the_state():
    attention, other = attention_of(seed=7), attention_of(seed=8)
    x = torch.randn(L, B, E)
    attention(x, x, x, need_weights=False)
    other.load_state_dict(attention.state_dict())
    results = [each(x, x, x, need_weights=False)[0] for each in (attention, other)]
    assert torch.equal(*results)


def test_the_class_of_a_tensor_and_transforms_are_left_to_pytorch(steps):
    attention = attention_of(batch_first=True)
    x = torch.randn(B, L, E)
    loss = lambda x: attention(x, x, x, need_weights=False)[0].sum()  # noqa: E731
    assert torch.func.grad(loss)(x).shape == x.shape
    meta = copy.deepcopy(attention).to("meta")
    y = torch.empty(B, L, E, device="meta")
    assert meta(y, y, y, need_weights=False)[0].device.type == "meta"
    assert len(steps()) == 0


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {"need_weights": True}),
        ({"add_bias_kv": True}, {}),
        ({"add_zero_attn": True}, {}),
        ({"dropout": 0.0}, {}),
        ({}, {"attn_mask": torch.zeros(L, L, requires_grad=True)}),
    ],
)
def test_what_is_not_ours_is_computed_by_the_base_class(options, call, steps):
    options = {"dropout": 0.5, **options}
    attention = dt.MultiheadAttention(E, H, batch_first=True, **options)
    theirs = nn.MultiheadAttention(E, H, batch_first=True, **options)
    theirs.load_state_dict(attention.state_dict())
    x = torch.randn(B, L, E)
    results = []
    for each in (attention, theirs):
        torch.manual_seed(8)
        results.append(each(x, x, x, **{"need_weights": False, **call}))
    for found, expected in zip(*results, strict=True):
        assert (found is None and expected is None) or torch.equal(found, expected)
    assert len(steps()) == 0


def test_eval_mode_is_pytorchs(steps):
    attention = attention_of(batch_first=True).eval()
    theirs = nn.MultiheadAttention(E, H, dropout=0.3, batch_first=True).eval()
    theirs.load_state_dict(attention.state_dict())
    x = torch.randn(B, L, E)
    for need_weights, grad in itertools.product((False, True), repeat=2):
        with torch.set_grad_enabled(grad):
            results = [m(x, x, x, need_weights=need_weights)[0] for m in (attention, theirs)]
        assert torch.equal(*results)
    assert len(steps()) == 0


WRONG = {
    "a mask of another length": {"attn_mask": torch.zeros(L, L + 1, dtype=torch.bool)},
    "a mask of another batch": {"key_padding_mask": torch.zeros(B + 1, L, dtype=torch.bool)},
    "a mask of integers": {"attn_mask": torch.zeros(L, L, dtype=torch.int64)},
    "a causal hint without a mask": {"is_causal": True},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_are_those_of_the_base_class(wrong):
    attention = attention_of(batch_first=True)
    theirs = nn.MultiheadAttention(E, H, dropout=0.3, batch_first=True)
    x = torch.randn(B, L, E)
    errors = []
    for each in (attention, theirs):
        with pytest.raises((RuntimeError, AssertionError)) as error:
            each(x, x, x, need_weights=False, **WRONG[wrong])
        errors.append((type(error.value), str(error.value)))
    assert errors[0] == errors[1]


def test_the_mask_is_the_contracts_over_batch_heads_queries_and_keys():
    # Equal scores, and values that count the keys: the result shows which were kept.
    length, rate = 5, 0.4
    q = k = torch.zeros(2, length, 4)
    v = torch.zeros(2, length, 4)
    kept = dwf.dropout_mask((2, 1, length, length), rate, key=9, stream=3)
    for column in range(length):
        v.zero_()
        v[:, column] = 1.0
        y = attend([q, k, v], Layout(1, True), Mask(rate, 9, 3, 0), None)
        expected = np.where(kept[:, 0, :, column], 1 / (1 - rate) / length, 0.0)
        np.testing.assert_allclose(y[:, :, 0].numpy(), expected, rtol=1e-6)
