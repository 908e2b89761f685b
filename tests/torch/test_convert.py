"""convert and revert: what is swapped, what stays as it is, and that a model remains itself."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

from support import require

torch = require("torch")
from torch import nn

import dropwise.torch as dt
from torch_models import encoder, sample

pytestmark = pytest.mark.usefixtures("steps")  # blocks of any size are one step


@pytest.mark.parametrize("name", [n for n in vars(nn) if n.endswith("Dropout") or "Dropout" in n])
def test_every_dropout_of_torch_becomes_ours(name):
    model = nn.Sequential(getattr(nn, name)(0.3))
    report = dt.convert(model)
    assert type(model[0]) is getattr(dt, name)
    assert report.swapped == {"0": name}
    dt.revert(model)
    assert type(model[0]) is getattr(nn, name)


def test_a_model_keeps_its_identity():
    model = encoder()
    parameters = {name: id(p) for name, p in model.named_parameters()}
    keys, names = list(model.state_dict()), [name for name, _ in model.named_modules()]
    x = sample()
    expected = model.eval()(x)
    dt.convert(model)
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_modules()] == names
    assert torch.equal(model(x), expected)
    other = encoder()
    other.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(other.state_dict(), strict=True)


def test_masks_of_a_seed_do_not_depend_on_torchs_generator():
    results = []
    for torch_seed in (1, 2):
        model = encoder()
        dt.convert(model, seed=5)
        torch.manual_seed(torch_seed)
        results.append([model(sample()), model(sample())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(*results[0])


def test_modules_of_one_seed_have_masks_of_their_own():
    model = nn.Sequential(*(nn.Dropout(0.5) for _ in range(4)))
    dt.convert(model, seed=5)
    x = torch.ones(100)
    masks = [module(x) for module in model]
    assert all(not torch.equal(masks[i], masks[j]) for i in range(4) for j in range(i))


def test_the_masks_of_a_module_depend_on_its_place_only():
    x = torch.ones(100)
    results = []
    for attention in (True, False):
        model = encoder()
        dt.convert(model, seed=5, attention=attention)
        results.append(model.layers[1].dropout2(x))
    assert torch.equal(*results)


def test_rows_of_a_batch_may_be_computed_apart():
    whole, part = encoder(), encoder()
    dt.convert(whole, seed=5)
    dt.convert(part, seed=5, row_offset=2)
    x = sample(5)
    torch.testing.assert_close(part(x[2:]), whole(x)[2:])


def test_manual_seed_and_fork_rng_act_as_ever():
    model = encoder()
    dt.convert(model)
    x = sample()
    torch.manual_seed(1)
    first = model(x)
    torch.manual_seed(1)
    assert torch.equal(model(x), first)
    torch.manual_seed(1)
    with torch.random.fork_rng():
        model(x)
    assert torch.equal(model(x), first)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    from torch.utils.checkpoint import checkpoint

    model = encoder()
    dt.convert(model)
    gradients = []
    for through in (lambda layer, x: layer(x), None):
        model.zero_grad()
        x = sample().requires_grad_()
        torch.manual_seed(1)
        for layer in model.layers:
            x = checkpoint(layer, x, use_reentrant=reentrant) if through is None else layer(x)
        x.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def by_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def by_torch(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, by_torch])
def test_a_copy_is_converted_too(copied, seed, steps):
    model = encoder()
    dt.convert(model, seed=seed)
    model(sample())
    other = copied(model)
    steps()
    results = []
    for each in (model, other):
        torch.manual_seed(2)
        results.append(each(sample()))
    assert torch.equal(*results)
    assert steps() == ["attend", "fused"] * 4
    dt.revert(other)
    assert type(other.layers[0]) is nn.TransformerEncoderLayer


def test_hooks_stay_and_run(steps):
    model = encoder()
    seen: list[str] = []
    first = model.layers[0]
    for name in ("linear1", "dropout", "dropout2", "self_attn"):
        module = getattr(first, name)
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    first.register_forward_hook(lambda *_: seen.append("layer"))
    dt.convert(model)
    model(sample()).sum().backward()
    assert seen == ["self_attn", "linear1", "dropout", "dropout2", "layer"]
    assert steps() == ["attend", "attend", "fused"]  # the first block goes through its modules


def test_the_fast_path_of_eval_is_taken_as_before(monkeypatch):
    taken: list[int] = []
    original = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(
        torch,
        "_transformer_encoder_layer_fwd",
        lambda *a, **k: taken.append(1) or original(*a, **k),
    )
    model = encoder().eval()
    x = sample()
    counts, results = [], []
    for change in (lambda m: None, dt.convert):
        change(model)
        with torch.no_grad():
            results.append(model(x))
        counts.append(len(taken))
    assert counts == [2, 4]
    assert torch.equal(*results)


class MyDropout(nn.Dropout):
    def forward(self, input):
        return input


class MyLayer(nn.TransformerEncoderLayer):
    def _ff_block(self, x):
        return x


class MyAttention(nn.MultiheadAttention):
    pass


class MySequential(nn.Sequential):
    pass


def test_subclasses_stay_as_they_are_and_the_report_says_so():
    model = nn.ModuleDict(
        {
            "drop": MyDropout(0.5),
            "layer": MyLayer(8, 2, 16),
            "attention": MyAttention(8, 2, dropout=0.1),
            "block": MySequential(nn.Linear(2, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2)),
        }
    )
    kept = {name: type(module) for name, module in model.items()}
    report = dt.convert(model)
    assert {name: type(module) for name, module in model.items()} == kept
    assert report.kept == {
        "drop": "MyDropout is a subclass of Dropout",
        "layer": "MyLayer is a subclass of TransformerEncoderLayer",
        "attention": "MyAttention is a subclass of MultiheadAttention",
    }
    assert set(report.swapped) == {
        "layer.self_attn",
        "layer.dropout",
        "layer.dropout1",
        "layer.dropout2",
        "block.2",
    }


def test_what_has_no_effect_is_not_swapped_and_the_report_says_why():
    model = nn.ModuleDict(
        {
            "gelu": nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"),
            "no dropout": nn.MultiheadAttention(8, 2),
            "bias": nn.MultiheadAttention(8, 2, dropout=0.1, add_bias_kv=True),
            "patched": nn.Dropout(0.1),
        }
    )
    model["patched"].forward = lambda x: x
    report = dt.convert(model)
    assert report.kept == {
        "gelu": "its activation is not ReLU",
        "no dropout": "has no dropout",
        "bias": "add_bias_kv and add_zero_attn are PyTorch's",
        "patched": "has a forward of its own",
    }
    assert type(model["gelu"]) is nn.TransformerEncoderLayer
    assert type(model["gelu"].dropout) is dt.Dropout


def test_the_report_reads_well():
    model = nn.ModuleDict({"encoder": encoder(), "drop": MyDropout(0.5)})
    assert repr(dt.convert(model)).splitlines() == [
        "10 modules converted:",
        "  2 TransformerEncoderLayer",
        "  2 MultiheadAttention",
        "  6 Dropout",
        "1 module stays as it is:",
        "  drop: MyDropout is a subclass of Dropout",
    ]
    assert repr(dt.convert(nn.Linear(2, 2))) == "0 modules converted"


def test_parts_may_be_left_out(steps):
    model = encoder()
    dt.convert(model, attention=False, feed_forward=False)
    assert type(model.layers[0]) is nn.TransformerEncoderLayer
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention
    assert type(model.layers[0].dropout) is dt.Dropout
    model(sample())
    assert steps() == []
    dt.convert(model, attention=False)
    model(sample())
    assert steps() == ["fused"] * 2


def test_models_that_hold_dropouts_of_their_own(steps):
    class Mlp(nn.Module):  # as in many libraries of image models
        def __init__(self):
            super().__init__()
            self.fc1, self.act, self.drop1 = nn.Linear(12, 24), nn.GELU(), nn.Dropout(0.2)
            self.norm, self.fc2, self.drop2 = nn.Identity(), nn.Linear(24, 12), nn.Dropout(0.2)

        def forward(self, x):
            return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))

    class Attention(nn.Module):  # as in many libraries of language models
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
            self.attn_drop, self.resid_drop = nn.Dropout(0.1), nn.Dropout(0.1, inplace=True)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            weights = self.attn_drop(torch.softmax(q @ k.mT / 12**0.5, -1))
            return self.resid_drop(self.proj(weights @ v))

    model = nn.ModuleList([Mlp(), Attention()])
    report = dt.convert(model, seed=1)
    assert report.swapped == dict.fromkeys(
        ["0.drop1", "0.drop2", "1.attn_drop", "1.resid_drop"], "Dropout"
    )
    x = torch.randn(2, 5, 12, requires_grad=True)
    model[1](model[0](x)).sum().backward()
    assert x.grad.isfinite().all()
    dt.revert(model)
    assert all(type(m) is nn.Dropout for m in model.modules() if isinstance(m, nn.Dropout))


def test_revert_leaves_nothing_behind():
    model = encoder()
    before = [(type(m), sorted(m.__dict__)) for m in model.modules()]
    dt.convert(model, seed=4, row_offset=1)
    dt.revert(model)
    assert [(type(m), sorted(m.__dict__)) for m in model.modules()] == before
    dt.revert(model)  # which changes nothing


def test_revert_leaves_modules_that_were_built_as_ours():
    model = nn.Sequential(dt.Dropout(0.5, seed=1), nn.Dropout(0.5))
    dt.convert(model)
    dt.revert(model)
    assert [type(m) for m in model] == [dt.Dropout, nn.Dropout]


def test_converting_twice_changes_nothing():
    model = encoder()
    dt.convert(model, seed=1)
    state = model.layers[0].dropout._state
    report = dt.convert(model)
    assert report.swapped == report.kept == {}
    assert model.layers[0].dropout._state is state


def test_a_module_used_in_two_places_is_swapped_once():
    drop = nn.Dropout(0.5)
    report = dt.convert(nn.Sequential(drop, nn.Tanh(), drop))
    assert report.swapped == {"0": "Dropout"}


def test_functional_call_and_transforms():
    model = encoder()
    dt.convert(model)
    parameters = dict(model.named_parameters())
    x = sample()

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (x,)).square().mean()

    torch.manual_seed(1)
    expected = torch.autograd.grad(loss(parameters), list(parameters.values()))
    assert all(g.isfinite().all() for g in expected)
    detached = {name: p.detach() for name, p in parameters.items()}
    found = torch.func.grad(loss)(detached)
    assert set(found) == set(parameters)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "model"}, TypeError, r"model must be a torch.nn.Module, got str"),
        ({"seed": "x"}, TypeError, "seed must be an int"),
        ({"row_offset": -1}, ValueError, r"row_offset must be in .* got -1"),
        ({"row_offset": 0.5}, TypeError, "row_offset must be an integer"),
    ],
)
def test_wrong_arguments_change_nothing(arguments, error, message):
    model = encoder()
    with pytest.raises(error, match=message):
        dt.convert(**{"model": model, **arguments})
    assert type(model.layers[0]) is nn.TransformerEncoderLayer


@pytest.mark.parametrize("last", [[], [nn.ReLU(inplace=True)]])
def test_the_result_of_a_converted_block_may_be_written_to(last, steps):
    layers = [nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 32)]
    model = nn.Sequential(*layers, *last)
    dt.convert(model)
    y = model(torch.randn(300, 64))
    assert steps() == ["fused"]
    if not last:
        y += 1
    y.sum().backward()
    assert layers[0].weight.grad.isfinite().all()
