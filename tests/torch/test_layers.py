"""The layers that `convert` makes: which steps they take, and that they compute what they did."""

from __future__ import annotations

import contextlib
import copy

import pytest

from support import require

torch = require("torch")
from torch import nn
from torch.nn import functional as F

import dropwise as dw
import dropwise.torch as dt
from torch_models import encoder, sample

pytestmark = pytest.mark.usefixtures("steps")  # blocks of any size are one step


def test_an_encoder_takes_our_steps_in_training(steps):
    model = encoder()
    dt.convert(model)
    model(sample()).sum().backward()
    assert steps() == ["attend", "fused"] * 2
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_decoder_takes_our_steps_in_training(norm_first, batch_first, steps):
    options = {"norm_first": norm_first, "batch_first": batch_first}
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(24, 4, 48, 0.1, **options), 2)
    dt.convert(model)
    x, memory = sample(), sample()
    causal = nn.Transformer.generate_square_subsequent_mask(10 if batch_first else 3)
    model(x, memory, tgt_mask=causal, tgt_is_causal=True).sum().backward()
    assert steps() == ["attend", "attend", "fused"] * 2


def as_float(blocked: torch.Tensor) -> torch.Tensor:
    return torch.zeros(blocked.shape).masked_fill(blocked, -torch.inf)


def without_randomness(model: nn.Module) -> nn.Module:
    """A rate so small that nothing is ever dropped: then PyTorch and dropwise agree."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 1e-12
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 1e-12
    return model.train()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True, but:UserWarning")
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", F.relu, torch.relu, nn.ReLU()])
def test_a_converted_transformer_computes_what_it_computed(activation, bias, norm_first, steps):
    torch.manual_seed(0)
    options = {"activation": activation, "bias": bias, "norm_first": norm_first}
    model = nn.Transformer(24, 4, 1, 2, 48, batch_first=True, **options)
    without_randomness(model)
    converted = copy.deepcopy(model)
    dt.convert(converted)
    padding = torch.zeros(3, 10, dtype=torch.bool)
    padding[1, 6:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(10)
    results = []
    for each in (model, converted):
        source, target = sample().requires_grad_(), (2 * sample()).requires_grad_()
        y = each(
            source,
            target,
            tgt_mask=causal,
            src_key_padding_mask=as_float(padding),
            memory_key_padding_mask=as_float(padding),
            tgt_is_causal=True,
        )
        y.square().sum().backward()
        results.append([y, source.grad, target.grad, *(p.grad for p in each.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert steps() == ["attend", "fused", *["attend", "attend", "fused"] * 2]


def test_a_hook_on_the_last_dropout_leaves_the_rest_of_the_block_one_step(steps):
    model = encoder()
    seen: list[int] = []
    dt.convert(model)
    model.layers[0].dropout2.register_forward_hook(lambda *_: seen.append(1))
    model(sample())
    assert seen == [1]
    assert steps() == ["attend", "fused"] * 2


def test_a_hook_on_the_activation_runs(steps):
    model = encoder(activation=nn.ReLU())
    seen: list[int] = []
    model.layers[0].activation.register_forward_hook(lambda *_: seen.append(1))
    report = dt.convert(model)
    assert report.kept == {}
    model(sample())
    assert seen == [1]
    assert steps() == ["attend", "attend", "fused"]


def test_the_backends_agree(steps):
    model = encoder(0.3)
    dt.convert(model)
    results = []
    for name in ("native", "numba"):
        require({"native": "dropwise._native", "numba": "numba"}[name])
        model.zero_grad()
        torch.manual_seed(2)
        with dw.backend(name):
            y = model(sample())
            y.square().sum().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    assert steps() == ["attend", "fused"] * 4
    for native, numba in zip(*results, strict=True):
        torch.testing.assert_close(numba, native, rtol=1e-4, atol=1e-4)


def test_saved_tensors_may_be_kept_elsewhere():
    model = encoder(0.3)
    dt.convert(model)
    gradients = []
    for hooks in (None, torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone)):
        model.zero_grad()
        torch.manual_seed(3)
        with hooks or contextlib.nullcontext():
            y = model(sample())
        y.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_autocast_keeps_pytorchs_linear_layers(steps):
    model = encoder()
    dt.convert(model)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(sample())
    y.sum().backward()
    assert steps() == ["attend"] * 2
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_the_private_methods_that_are_overridden_are_those_of_pytorch():
    for name in ("TransformerEncoderLayer", "TransformerDecoderLayer"):
        base = getattr(nn, name)
        assert "_ff_block" in vars(base)
        assert "_ff_block" in base.forward.__code__.co_names


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 3)
    )


def test_a_sequential_takes_one_step_for_the_pattern(steps):
    model = mlp()
    dt.convert(model)
    x = torch.randn(6, 3, 4)
    torch.manual_seed(3)
    y = model(x)
    assert steps() == ["fused"]
    torch.manual_seed(3)
    expected = x
    for module in model:
        expected = module(expected)
    assert steps() == []
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("LRDL", 1),
        ("LRDLD", 1),
        ("LRDLRDLRDL", 1),
        ("NLRDLRN", 1),
        ("LRDLNLRDL", 2),
        ("LRL", None),
        ("LGDL", None),
        ("LDRL", None),
        ("RDL", None),
        ("D", None),
    ],
)
def test_patterns_of_a_sequential(modules, expected, steps):
    make = {
        "L": lambda: nn.Linear(7, 7),
        "R": nn.ReLU,
        "D": lambda: nn.Dropout(0.3),
        "N": lambda: nn.LayerNorm(7),
        "G": nn.GELU,
    }
    model = nn.Sequential(*(make[letter]() for letter in modules))
    dt.convert(model)
    assert type(model) is (nn.Sequential if expected is None else type(model))
    assert (type(model) is nn.Sequential) == (expected is None)
    torch.manual_seed(3)
    y = model(torch.ones(4, 7))
    assert len(steps()) == (expected or 0)
    torch.manual_seed(3)
    z = torch.ones(4, 7)
    for module in model:
        z = module(z)
    torch.testing.assert_close(y, z)


def test_a_sequential_with_a_hook_inside_calls_its_modules(steps):
    model = mlp()
    dt.convert(model)
    seen: list[torch.Tensor] = []
    model[2].register_forward_hook(lambda module, given, result: seen.append(result))
    model(torch.randn(6, 12))
    assert steps() == []
    assert seen[0].shape == (6, 30)


def test_a_sequential_may_be_changed_after_it_was_converted(steps):
    model = mlp()
    dt.convert(model)
    model.append(nn.Tanh())
    model[2] = nn.GELU()
    assert model(torch.randn(6, 12)).abs().max() <= 1
    assert steps() == []
    assert len(model[1:3]) == 2


def test_a_compiler_sees_the_layers_as_one_graph(steps):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.mlp = encoder(), mlp()

        def forward(self, x):
            return self.mlp(self.encoder(x)[:, 0, :12])

    model = Model()
    dt.convert(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.manual_seed(1)
    first = compiled(sample())
    torch.manual_seed(1)
    assert torch.equal(compiled(sample()), first)
    assert not torch.equal(compiled(sample()), first)
    first.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert steps() == []
