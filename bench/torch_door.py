"""What `dropwise.torch` saves in training with PyTorch, on the CPU.

    python3 bench/torch_door.py [--quick] [--threads 2] [--cpu-time] [--only encoder]

The same model before and after `convert`, its parts, and the dropout module alone; always forward
and backward, as many rows as in the text of a goal.  Before a model is timed, both are compared at
a rate at which nothing is ever dropped, where they must agree.  PyTorch's threads wait as they do
by default.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import harness
from harness import Case, Contender, Goal, Question

RATES = (0.1, 0.5)
BATCH, LENGTH, LAYERS = 16, 128, 2
WIDTHS = {128: 4, 256: 4, 512: 8}  # and heads; the feed-forward block is four times as wide
BLOCKS = ((2048, 256, 1024), (2048, 512, 2048), (256, 1024, 4096))  # rows, width, hidden width
SIZES = (64, 4096, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
NEVER = 1e-12  # a rate that drops nothing, and yet goes through all steps of dropout

PEER, OURS, NONE = "PyTorch", "dropwise", "PyTorch, no dropout"

torch = harness.optional("torch")


def agree(found: Iterable[Any], expected: Iterable[Any], autocast: bool = False) -> None:
    """Raise unless results and their gradients are the same to rounding.

    One hidden unit in millions is so close to 0 that rounding decides whether ReLU lets its
    gradient pass, hence the larger tolerance for gradients.
    """
    tolerance = 5e-2 if autocast else 2e-6
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= tolerance * b.norm()
        tolerance = max(tolerance, 3e-3)


def finite(result: Any) -> None:
    """The check of a result at random."""
    assert bool(result.isfinite().all())


def step(call: Callable[[Any], Any], x: Any, dy: Any, of: Iterable[Any]) -> Callable[[], Any]:
    """Forward and backward; returns the gradient of x."""
    tensors = [x, *of]

    def run() -> Any:
        for tensor in tensors:
            tensor.grad = None
        y = call(x)
        y.backward(dy.to(y.dtype))
        return x.grad

    return run


def gradients(call: Callable[[Any], Any], x: Any, dy: Any, of: Iterable[Any]) -> list[Any]:
    """The result and all gradients."""
    y = call(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *of], dy.to(y.dtype))]


def set_rate(model: Any, rate: float) -> Any:
    """The model with another rate of dropout everywhere."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = rate
    return model


def before_and_after(
    model: Any, x: Any, rate: float, autocast: bool = False, *, none: bool = False
) -> list[Contender]:
    """A model and the converted one, compared; perhaps also PyTorch's without dropout."""
    import dropwise.torch as dt

    def under_autocast(model: Any) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return model(x)

        return call

    converted = copy.deepcopy(set_rate(model, NEVER))
    dt.convert(converted)
    dy = torch.randn_like(x)
    models = {PEER: model, OURS: converted}
    found = [gradients(under_autocast(m), x, dy, m.parameters()) for m in models.values()]
    agree(*reversed(found), autocast=autocast)
    if none:
        models[NONE] = set_rate(copy.deepcopy(model), 0.0)
    for name in (PEER, OURS):
        set_rate(models[name], rate)
    return [
        Contender(name, step(under_autocast(m), x, dy, m.parameters()), finite)
        for name, m in models.items()
    ]


def encoder(width: int, rate: float, autocast: bool) -> list[Contender]:
    """A `TransformerEncoder`."""
    nn = torch.nn
    layer = nn.TransformerEncoderLayer(width, WIDTHS[width], 4 * width, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.TransformerEncoder(layer, LAYERS)
    x = torch.randn(BATCH, LENGTH, width, requires_grad=True)
    return before_and_after(model, x, rate, autocast, none=not autocast)


def block(rows: int, width: int, hidden: int, rate: float) -> list[Contender]:
    """Two linear layers with ReLU and dropout between them."""
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, width)
    )
    return before_and_after(model, torch.randn(rows, width, requires_grad=True), rate)


def attention(width: int, rate: float) -> list[Contender]:
    """Scaled dot-product attention between the projections."""
    from dropwise.torch._attention import Layout, attend
    from dropwise.torch._tensors import Mask

    heads = WIDTHS[width]
    layout = Layout(heads, True)

    def theirs(projected: Any, rate: float) -> Any:
        q, k, v = layout.views([projected], 3)[0]
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, None, rate)
        return layout.join(y)

    def ours(projected: Any, rate: float) -> Any:
        key, stream = torch.randint(1 << 56, (2,)).tolist()
        return attend([projected], layout, Mask(rate, key, stream, 0), None)

    x = torch.randn(BATCH, LENGTH, 3 * width, requires_grad=True)
    dy = torch.randn(BATCH, LENGTH, width)
    agree(*(gradients(lambda x, f=f: f(x, NEVER), x, dy, ()) for f in (ours, theirs)))
    return [
        Contender(name, step(lambda x, f=f: f(x, rate), x, dy, ()), finite)
        for name, f in ((PEER, theirs), (OURS, ours))
    ]


def module(n: int, rate: float) -> list[Contender]:
    """The dropout module alone."""
    import dropwise.torch as dt

    x, dy = torch.rand(n).add_(0.5).requires_grad_(), torch.ones(n)

    def check(gradient: Any) -> None:
        kept = gradient.numpy() != 0
        np.testing.assert_allclose(gradient.numpy()[kept], 1 / (1 - rate), rtol=1e-6)
        deviation = (rate * (1 - rate) / n) ** 0.5
        assert abs(kept.mean() - (1 - rate)) <= 6 * deviation + 1e-9

    modules = {PEER: torch.nn.Dropout(rate), OURS: dt.Dropout(rate)}
    return [Contender(name, step(m, x, dy, ()), check) for name, m in modules.items()]


def cases(args: argparse.Namespace) -> Iterable[Case]:
    """The questions, from the whole to its parts."""
    if torch is None:
        raise SystemExit("this bench needs PyTorch: pip install torch")
    torch.manual_seed(0)

    def case(what: str, contenders: list[Contender], **labels: Any) -> Case:
        return Case({"what": what, **labels, "threads": args.threads}, contenders)

    rates = RATES[:1] if args.quick else RATES
    for rate in rates:
        for width in list(WIDTHS)[: 1 if args.quick else None]:
            for autocast in (False, True):
                what = "encoder, bf16 autocast" if autocast else "encoder"
                yield case(what, encoder(width, rate, autocast), width=width, rate=rate)
            yield case("attention", attention(width, rate), width=width, rate=rate)
        for shape in BLOCKS[: 1 if args.quick else None]:
            yield case("feed-forward", block(*shape, rate), shape=_text(shape), rate=rate)
        for n in SIZES[: 2 if args.quick else None]:
            yield case("Dropout", module(n, rate), n=n, rate=rate)


def _text(shape: tuple[int, int, int]) -> str:
    rows, width, hidden = shape
    return f"{rows} rows, {width}-{hidden}-{width}"


def _goals(
    what: str,
    floors: tuple[float, float],
    aims: tuple[float, float],
    threads: int = 1,
    **where: Any,
) -> list[Goal]:
    """How many times as fast at the two rates."""
    text = ", ".join(str(value) for value in (what, *where.values()))
    return [
        Goal(
            f"{text}, rate {rate:g}",
            PEER,
            ">=",
            floor,
            aim,
            OURS,
            (PEER,),
            {"what": what, "rate": rate, "threads": threads, **where},
        )
        for rate, floor, aim in zip(RATES, floors, aims, strict=True)
    ]


def _module_goal(text: str, limit: str, floor: float, aim: float, sizes: tuple[int, ...]) -> Goal:
    where = {"what": "Dropout", "n": sizes, "threads": 1}
    return Goal(f"Dropout, {text}", PEER, limit, floor, aim, OURS, (PEER,), where)


GOALS = [
    *_goals("encoder", (1.8, 2.5), (2.0, 3.0), width=128),
    *_goals("encoder", (1.5, 2.0), (1.75, 2.35), width=256),
    *_goals("encoder", (1.35, 1.75), (1.5, 1.95), width=512),
    Goal(
        "encoder, 512, rate 0.5",
        NONE,
        ">=",
        1.0,
        1.25,
        OURS,
        (NONE,),
        {"what": "encoder", "width": 512, "rate": 0.5, "threads": 1},
    ),
    *_goals("encoder", (1.4, 1.9), (1.6, 2.2), threads=2),
    *_goals("encoder, bf16 autocast", (1.7, 2.2), (2.0, 2.6)),
    *_goals("attention", (1.9, 2.3), (2.2, 2.7)),
    *_goals("feed-forward", (1.5, 2.2), (1.62, 2.53), shape=_text(BLOCKS[0])),
    *_goals("feed-forward", (1.45, 1.9), (1.55, 2.12), shape=_text(BLOCKS[1])),
    *_goals("feed-forward", (1.15, 1.55), (1.21, 1.66), shape=_text(BLOCKS[2])),
    _module_goal("64 elements", "<=", 1.5, 1.25, SIZES[:1]),
    _module_goal("4096 elements", ">=", 1.25, 1.5, SIZES[1:2]),
    _module_goal("64 K to 256 K elements", ">=", 8, 12, SIZES[2:4]),
    _module_goal("1 M to 16 M elements", ">=", 7, 10, SIZES[4:]),
]

QUESTION = Question(
    "torch_door",
    "What dropwise.torch saves in training with PyTorch.",
    cases,
    GOALS,
    seconds=2.0,
)

if __name__ == "__main__":
    harness.main(QUESTION)
