"""The feed-forward block: the values and gradients of its layers called one by one, in float64."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest

from support import require

torch = require("torch")
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import dropwise.torch as dt
from dropwise.torch import _feed_forward as module

TOLERANCE = 2e-6  # of the norm: float32 sums of at most 200 terms

pytestmark = pytest.mark.usefixtures("steps")  # blocks of any size are one step


def layers_of(*, rate: float = 0.3, out_rate: float | None = None, bias: bool = True) -> list:
    torch.manual_seed(0)
    layers = [nn.Linear(48, 136, bias=bias), dt.Dropout(rate), nn.Linear(136, 40, bias=bias)]
    return layers if out_rate is None else [*layers, dt.Dropout(out_rate)]


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x.detach().double().requires_grad_(x.requires_grad)


def one_by_one(x: torch.Tensor, layers: list) -> torch.Tensor:
    last = (len(layers) - 1) // 2 * 2
    for i, layer in enumerate(layers):
        x = layer(x)
        if i % 2 == 0 and i < last:
            x = F.relu(x)
    return x


def parameters_of(layers: list) -> list[torch.Tensor]:
    return list(nn.ModuleList(layers).parameters())


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert (found.double() - expected).norm() <= TOLERANCE * expected.norm()


def check(x: torch.Tensor, layers: list, dy: torch.Tensor | None = None) -> None:
    """Compare the result, and all gradients that are wanted, with those of float64 layers."""
    reference = copy.deepcopy(layers)
    for layer in reference:
        layer.double()
    x64 = doubled(x)
    torch.manual_seed(5)
    y = dt.feed_forward(x, *layers)
    torch.manual_seed(5)
    expected = one_by_one(x64, reference)
    assert_close(y.detach(), expected.detach())
    inputs = [t for t in (x, *parameters_of(layers)) if t.requires_grad]
    inputs64 = [t for t in (x64, *parameters_of(reference)) if t.requires_grad]
    if dy is None:
        dy = torch.randn(y.shape)
    found = torch.autograd.grad(y, inputs, dy)
    for g, e in zip(found, torch.autograd.grad(expected, inputs64, dy.double()), strict=True):
        assert_close(g, e)


@pytest.mark.parametrize("out_rate", [None, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_values_and_gradients_are_those_of_the_layers(rate, out_rate, steps):
    layers = layers_of(rate=rate, out_rate=out_rate)
    check(torch.randn(200, 48, requires_grad=True), layers)
    assert len(steps()) == 1


@pytest.mark.parametrize("shape", [(48,), (1, 48), (7, 3, 48), (2, 3, 5, 48)])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_may_have_any_rank(shape, bias, steps):
    check(torch.randn(shape, requires_grad=True), layers_of(out_rate=0.2, bias=bias))
    assert len(steps()) == 1


def test_there_may_be_more_hidden_layers(steps):
    layers = [*layers_of(out_rate=0.4), nn.Linear(40, 33), dt.Dropout(0.1), nn.Linear(33, 9)]
    check(torch.randn(65, 48, requires_grad=True), layers)
    assert len(steps()) == 1


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=5)))
def test_frozen_weights_and_inputs_get_no_gradient(wanted):
    layers = layers_of(out_rate=0.2)
    x = torch.randn(31, 48, requires_grad=wanted[0])
    for parameter, is_wanted in zip(parameters_of(layers), wanted[1:], strict=True):
        parameter.requires_grad_(is_wanted)
    if any(wanted):
        check(x, layers)
    else:
        assert not dt.feed_forward(x, *layers).requires_grad


def test_any_strides():
    layers = layers_of(out_rate=0.2)
    check(torch.randn(48, 9, 5).permute(1, 2, 0).requires_grad_(), layers)
    check(torch.randn(10, 9, 96)[::2, :, ::2].requires_grad_(), layers)
    check(torch.randn(48).expand(6, 48).requires_grad_(), layers)
    for linear in layers[::2]:
        linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())
        linear.bias = nn.Parameter(linear.bias.detach().repeat_interleave(2)[::2])
    x = torch.randn(30, 48, requires_grad=True)
    check(x, layers)
    check(x, layers, dy=torch.tensor(0.5).expand(30, 40))
    check(x, layers, dy=torch.randn(40, 30).t())


def test_no_rows(steps):
    layers = layers_of(out_rate=0.2)
    x = torch.zeros(0, 3, 48, requires_grad=True)
    y = dt.feed_forward(x, *layers)
    assert y.shape == (0, 3, 40)
    y.sum().backward()
    assert len(steps()) == 1
    assert x.grad.shape == x.shape
    assert all(not p.grad.any() for p in parameters_of(layers))


def test_one_linear_layer_twice_gets_the_sum_of_both_gradients():
    square = nn.Linear(48, 48)
    check(torch.randn(50, 48, requires_grad=True), [square, dt.Dropout(0.3), square])


def test_a_block_called_twice_accumulates():
    layers = layers_of()
    x = torch.randn(20, 48)
    dt.feed_forward(x, *layers).sum().backward(retain_graph=True)
    once = [p.grad.clone() for p in parameters_of(layers)]
    y = dt.feed_forward(x, *layers)
    for p in parameters_of(layers):
        p.grad = None
    y.sum().backward(retain_graph=True)
    first = [p.grad.clone() for p in parameters_of(layers)]
    y.sum().backward()
    assert all(
        torch.equal(p.grad, 2 * g) for p, g in zip(parameters_of(layers), first, strict=True)
    )
    assert not all(torch.equal(a, b) for a, b in zip(once, first, strict=True))  # another mask


def test_several_forwards_before_their_backwards():
    layers = layers_of(out_rate=0.1)
    xs = [torch.randn(20, 48, requires_grad=True) for _ in range(3)]
    torch.manual_seed(1)
    together = [dt.feed_forward(x, *layers) for x in xs]
    for y in together:
        y.sum().backward()
    torch.manual_seed(1)
    for x in xs:
        (alone,) = torch.autograd.grad(dt.feed_forward(x, *layers).sum(), x)
        assert torch.equal(x.grad, alone)


def masks_of(layers: list, rows: int) -> list:
    widths = [len(linear.weight) for linear in layers[::2]]
    rates = [dropout.p for dropout in layers[1::2]]
    masks = [module.Mask(rate, 7, i, 0) for i, rate in enumerate(rates)]
    return masks + [None] * (len(widths) - len(rates))


def tiny_layers() -> list:
    torch.manual_seed(3)
    layers = [nn.Linear(3, 6), dt.Dropout(0.4), nn.Linear(6, 5), dt.Dropout(0.2), nn.Linear(5, 2)]
    for linear in layers[::2]:
        linear.double()
    return layers


@pytest.mark.parametrize("at_the_end", [False, True])
def test_gradients_and_their_gradients_agree_with_differences(at_the_end):
    layers = tiny_layers() + ([dt.Dropout(0.3)] if at_the_end else [])
    masks = masks_of(layers, 4)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    inputs = (x, *parameters_of(layers))

    def block(x, *parameters):
        return module.FeedForward.apply(x, masks, *parameters)

    assert torch.autograd.gradcheck(block, inputs)
    assert torch.autograd.gradgradcheck(block, inputs)


def test_a_gradient_penalty_has_the_gradient_of_the_layers():
    layers = layers_of(out_rate=0.2)
    x = torch.randn(20, 48, requires_grad=True)
    results = []
    for given, call in ((x, dt.feed_forward), (doubled(x), None)):
        if call is None:
            for layer in layers:
                layer.double()
        torch.manual_seed(2)
        y = one_by_one(given, layers) if call is None else call(given, *layers)
        (dx,) = torch.autograd.grad(y.pow(2).sum(), given, create_graph=True)
        results.append(torch.autograd.grad(dx.pow(2).sum(), [layers[0].weight, layers[2].weight]))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


def test_a_weight_changed_before_backward_is_an_error():
    layers = layers_of()
    y = dt.feed_forward(torch.randn(4, 48), *layers)
    with torch.no_grad():
        layers[2].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_no_graph_is_kept_without_gradients(steps):
    layers = layers_of()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert not dt.feed_forward(torch.randn(4, 48), *layers).requires_grad
    assert len(steps()) == 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant):
    from torch.utils.checkpoint import checkpoint

    layers = layers_of(out_rate=0.1)
    x = torch.randn(20, 48, requires_grad=True)
    gradients = []
    for call in (
        lambda x: dt.feed_forward(x, *layers),
        lambda x: checkpoint(lambda x: dt.feed_forward(x, *layers), x, use_reentrant=reentrant),
    ):
        torch.manual_seed(4)
        x.grad = None
        call(x).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_a_seed_gives_the_masks_whatever_torchs_generator_says():
    results = []
    for seed in (1, 2):
        layers = layers_of(out_rate=0.2)
        layers[1].reseed(11)
        layers[3].reseed(12)
        x = torch.ones(5, 48)
        torch.manual_seed(seed)
        results.append([dt.feed_forward(x, *layers), dt.feed_forward(x, *layers)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(*results[0])


def test_rows_of_a_batch_may_be_computed_apart():
    layers = layers_of(out_rate=0.2)
    for i, dropout in enumerate(layers[1::2]):
        dropout.reseed(i)
    shards = copy.deepcopy(layers)
    x = torch.randn(6, 4, 48)
    whole = dt.feed_forward(x, *layers)
    for dropout in shards[1::2]:
        dropout.row_offset = 2
    torch.testing.assert_close(dt.feed_forward(x[2:], *shards), whole[2:])


# ---- when the layers are called one by one -------------------------------------------------------


def hooked(place: str, register: str, index: int) -> Callable[[list], object]:
    def change(layers: list) -> object:
        hook = (lambda m, *_: None) if "pre" in register else (lambda m, i, o: None)
        owner = layers[index] if place == "own" else nn.modules.module
        name = register if place == "own" else register.replace("register_", "register_module_")
        return getattr(owner, name)(hook)

    return change


def replaced(index: int, layer: Callable[[], nn.Module]) -> Callable[[list], None]:
    return lambda layers: layers.__setitem__(index, layer())


class MyLinear(nn.Linear):
    pass


class MyDropout(dt.Dropout):
    pass


REASONS = {
    **{
        f"{place} {register} {index}": hooked(place, register, index)
        for place, index in (("own", 0), ("own", 1), ("own", 2), ("global", 0))
        for register in (
            "register_forward_hook",
            "register_forward_pre_hook",
            "register_full_backward_hook",
            "register_full_backward_pre_hook",
        )
    },
    "weight norm": lambda layers: parametrizations.weight_norm(layers[0]),
    "pruning": lambda layers: prune.l1_unstructured(layers[2], "weight", 0.5),
    "another linear layer": replaced(2, lambda: MyLinear(136, 40)),
    "another dropout": replaced(1, lambda: MyDropout(0.3)),
    "torch's dropout": replaced(1, lambda: nn.Dropout(0.3)),
    "one in eval mode": lambda layers: layers[1].eval() and None,
    "a forward of its own": lambda layers: setattr(
        layers[0], "forward", lambda x, linear=layers[0]: nn.Linear.forward(linear, x)
    ),
    "compiled": lambda layers: layers[2].compile(backend="eager"),
    "float64 weights": lambda layers: [layer.double() for layer in layers] and None,
}


@pytest.mark.parametrize("reason", REASONS)
def test_layers_are_called_one_by_one_if_that_may_differ(reason, steps):
    layers = layers_of(out_rate=0.2)
    handle = REASONS[reason](layers)
    try:
        x = torch.randn(5, 48, dtype=layers[0].weight.dtype, requires_grad=True)
        torch.manual_seed(1)
        y = dt.feed_forward(x, *layers)
        torch.manual_seed(1)
        expected = one_by_one(x, layers)
    finally:
        if hasattr(handle, "remove") and not isinstance(handle, nn.Module):
            handle.remove()
    assert len(steps()) == 0
    assert torch.equal(y, expected)


@pytest.mark.parametrize("rows", [1, 1000])
def test_little_work_is_left_to_the_layers(rows, steps, monkeypatch):
    monkeypatch.setattr(module, "_WORTH", 1 << 19)
    layers = layers_of()
    torch.manual_seed(1)
    y = dt.feed_forward(torch.ones(rows, 48), *layers)
    torch.manual_seed(1)
    assert_close(y.detach(), one_by_one(torch.ones(rows, 48), layers).double().detach())
    assert len(steps()) == (rows > 1)


def test_autocast_computes_the_layers_in_16_bits(steps):
    layers = layers_of()
    with torch.autocast("cpu", torch.bfloat16):
        assert dt.feed_forward(torch.randn(5, 48), *layers).dtype == torch.bfloat16
    assert len(steps()) == 0


def test_transforms_see_the_layers(steps):
    layers = layers_of(rate=0.3)
    x = torch.randn(5, 48)

    def loss(x):
        return dt.feed_forward(x, *layers).pow(2).sum()

    torch.manual_seed(1)
    found = torch.func.grad(loss)(x)
    torch.manual_seed(1)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(one_by_one(x, layers).pow(2).sum(), x)
    torch.testing.assert_close(found, expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        y = dt.feed_forward(dual, *layers)
        assert torch.autograd.forward_ad.unpack_dual(y).tangent is not None
    assert len(steps()) == 0


def test_dispatch_modes_see_the_layers(steps):
    from torch.utils.flop_counter import FlopCounterMode

    layers = layers_of()
    with FlopCounterMode(display=False) as counter:
        dt.feed_forward(torch.randn(5, 48), *layers)
    assert counter.get_total_flops() == 2 * 5 * 136 * (48 + 40)
    assert len(steps()) == 0


def test_other_devices_and_subclasses_of_tensors_are_pytorchs(steps):
    layers = layers_of(out_rate=0.1)
    on_meta = [layer.to("meta") for layer in copy.deepcopy(layers)]
    assert dt.feed_forward(torch.empty(5, 48, device="meta"), *on_meta).device.type == "meta"

    class Mine(torch.Tensor):
        pass

    assert type(dt.feed_forward(torch.randn(5, 48).as_subclass(Mine), *layers)) is Mine
    assert len(steps()) == 0


def test_a_shape_that_does_not_fit_is_pytorchs_error(steps):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        dt.feed_forward(torch.randn(5, 47), *layers_of())
    assert len(steps()) == 0


def test_too_few_layers_are_refused():
    with pytest.raises(ValueError, match=r"needs a linear layer, a dropout .* got 2"):
        dt.feed_forward(torch.ones(2, 48), *layers_of()[:2])
