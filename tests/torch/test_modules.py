"""What the modules compute: the mask of the contract, in the dtype and the format of the input."""

from __future__ import annotations

import copy
import math
import warnings

import pytest

import dropwise as dw
from support import require, run_python

torch = require("torch")
from torch import nn

import dropwise.torch as dt
from dropwise.random import key_from_seed
from dropwise.torch import functional as F

X = torch.ones(40)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# A module, an input for it, and the shape of its mask.
MODULES = [
    (dt.Dropout, (5, 7), (5, 7)),
    (dt.Dropout, (), ()),
    (dt.Dropout1d, (5, 7, 3), (5, 7, 1)),
    (dt.Dropout1d, (7, 3), (7, 1)),
    (dt.Dropout2d, (5, 7, 3, 2), (5, 7, 1, 1)),
    (dt.Dropout3d, (5, 7, 3, 2, 2), (5, 7, 1, 1, 1)),
    (dt.Dropout3d, (7, 3, 2, 2), (7, 1, 1, 1)),
    (dt.DropPath, (50, 3, 2), (50, 1, 1)),
]
ALPHA = [(dt.AlphaDropout, (50, 7), (50, 7)), (dt.FeatureAlphaDropout, (50, 7, 3), (50, 7, 1))]
LAYERS = [
    (dt.AlphaDropout, dw.AlphaDropout(0.4, seed=5)),
    (dt.FeatureAlphaDropout, dw.FeatureAlphaDropout(0.4, data_format="channels_first", seed=5)),
]
OF_TORCH = [module for module, *_ in MODULES + ALPHA if module is not dt.DropPath]


def kept(shape, p, seed, stream=0, offset=0):
    key = key_from_seed(seed)
    mask = dw.functional.dropout_mask(shape, p, key=key, stream=stream, offset=offset)
    return torch.from_numpy(mask)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("module", "shape", "noise_shape"), MODULES)
def test_call_n_of_a_seed_has_the_mask_of_stream_n(backend, module, shape, noise_shape, dtype):
    drop = module(0.3, seed=5)
    x = torch.randn(shape).to(dtype)
    scale = torch.tensor(1 / 0.7, dtype=dtype)
    for stream in range(3):
        y = drop(x)
        expected = torch.where(kept(noise_shape, 0.3, 5, stream), x * scale, 0.0)
        assert y.dtype == dtype
        assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("module", "layer"), LAYERS)
def test_alpha_dropout_computes_what_that_of_arrays_does(backend, module, layer, dtype):
    layer = copy.deepcopy(layer)
    x = torch.randn(50, 7, 3, dtype=torch.float64).to(dtype)
    y = module(0.4, seed=5)(x)
    assert y.dtype == dtype
    expected = torch.from_numpy(layer.forward(x.double().numpy()))
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("module", "shape", "_"), MODULES + ALPHA)
@pytest.mark.parametrize("seed", [None, 1])
def test_rate_0_is_the_identity_and_rate_1_gives_zeros(module, shape, _, seed):
    x = torch.randn(shape, requires_grad=True)
    assert module(0.0, seed=seed)(x).data_ptr() == x.data_ptr()
    y = module(1.0, seed=seed)(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(shape))
    assert torch.equal(x.grad, torch.zeros(shape))


@pytest.mark.parametrize(("module", "shape", "_"), MODULES + ALPHA)
def test_in_eval_nothing_is_dropped_and_no_stream_taken(module, shape, _):
    x = torch.randn(shape)
    drop = module(0.5, seed=1).eval()
    assert torch.equal(drop(x), x)
    assert torch.equal(drop.train()(x), module(0.5, seed=1)(x))


def test_what_is_dropped_is_zero_even_where_it_was_not_finite():
    for value in (math.nan, math.inf, -math.inf, -1.0):
        for drop, shape in [
            (dt.Dropout(0.5, seed=1), (999,)),
            (dt.Dropout2d(0.5, seed=1), (9, 9, 2, 2)),
        ]:
            y = drop(torch.full(shape, value))
            dropped = y == 0
            assert 0.3 < dropped.float().mean() < 0.7
            assert not torch.signbit(y[dropped]).any()


def layouts(dtype=torch.float32):
    x = torch.arange(2 * 3 * 4 * 5).to(dtype).reshape(2, 3, 4, 5) + 1
    yield "contiguous", x
    yield "channels_last", x.contiguous(memory_format=torch.channels_last)
    yield "permuted", x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    yield "transposed", x.transpose(1, 3)
    yield "with gaps", torch.stack([x, x], -1)[..., 0]
    yield (
        "channels_last with gaps",
        torch.stack([x, x])[1].to(memory_format=torch.channels_last)[:, 1:],
    )
    yield "expanded", x[:, :1].expand(2, 3, 4, 5)
    yield "a part", x[:, 1:, ::2, 1:]
    yield "one row", x[:1, :, :1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "x"), list(layouts()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_mask_follows_the_logical_index_and_the_format_stays(name, x, dtype):
    if dtype != x.dtype:
        x = torch.empty_like(x, dtype=dtype).copy_(x) if "gaps" not in name else x.to(dtype)
    for module in (dt.Dropout, dt.Dropout2d):
        for contiguous_dy in (True, False):
            leaf = x.detach().requires_grad_()
            y = module(0.4, seed=2)(leaf)
            plain = module(0.4, seed=2)(x.contiguous())
            assert torch.equal(y, plain)
            assert y.stride() == torch.empty_like(x).stride()
            dy = torch.randn(x.shape).to(dtype)
            dy = dy if contiguous_dy else torch.empty_like(x).copy_(dy)
            (dx,) = torch.autograd.grad(y, leaf, dy)
            again = x.contiguous().requires_grad_()
            (expected,) = torch.autograd.grad(module(0.4, seed=2)(again), again, dy.contiguous())
            assert torch.equal(dx, expected)
            assert dx.stride() == torch.empty_like(dy).stride()


@pytest.mark.parametrize(("module", "shape", "_"), MODULES + ALPHA)
def test_in_place_writes_the_same_values_to_the_input(module, shape, _):
    x = torch.randn(shape)
    expected = module(0.4, seed=3)(x)
    leaf = torch.ones(shape, requires_grad=True)
    inner = leaf * x
    y = module(0.4, inplace=True, seed=3)(inner)
    assert y.data_ptr() == inner.data_ptr()
    assert torch.equal(inner, expected)
    y.sum().backward()
    other = x.clone().requires_grad_()
    module(0.4, seed=3)(other).sum().backward()
    assert torch.equal(leaf.grad, other.grad * x)


def test_in_place_on_a_leaf_that_requires_gradients_is_refused():
    with pytest.raises(RuntimeError, match="leaf Variable"):
        dt.Dropout(0.5, inplace=True)(torch.ones(3, requires_grad=True))


@pytest.mark.parametrize("threads", [1, 2, 7], indirect=True)
@pytest.mark.usefixtures("backend", "threads")
def test_a_large_input_has_the_same_mask_on_any_number_of_threads():
    x = torch.ones(1_000_003, requires_grad=True)
    y = dt.Dropout(0.3, seed=4)(x)
    mask = kept(x.shape, 0.3, 4)
    assert torch.equal(y != 0, mask)
    y.sum().backward()
    assert torch.equal(x.grad, y)


def test_row_offset_gives_a_part_of_the_batch_its_part_of_the_mask():
    x = torch.randn(12, 5, 3)
    for module in (dt.Dropout, dt.Dropout1d, dt.DropPath, dt.AlphaDropout, dt.FeatureAlphaDropout):
        whole = module(0.5, seed=6)(x)
        part = module(0.5, seed=6, row_offset=8)(x[8:])
        assert torch.equal(whole[8:], part)
    torch.manual_seed(0)
    whole = F.dropout(x)
    torch.manual_seed(0)
    assert torch.equal(whole[8:], F.dropout(x[8:], row_offset=8))


@pytest.mark.parametrize("row_offset", [-1, 1.5, 2**64])
def test_a_row_offset_that_cannot_be_is_refused(row_offset):
    drop = dt.Dropout(0.5, seed=1, row_offset=row_offset)
    with pytest.raises((TypeError, ValueError), match="offset must be"):
        drop(torch.ones(3, 4))


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_rate_out_of_range_is_refused(p):
    for function in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.drop_path):
        with pytest.raises(ValueError, match="between 0 and 1"):
            function(torch.ones(2, 3, 4, 4), p) if function is not F.dropout1d else function(
                torch.ones(2, 3, 4), p
            )
    for function in (F.alpha_dropout, F.feature_alpha_dropout):
        with pytest.raises(ValueError, match="between 0 and 1"):
            function(torch.ones(2, 3), p, training=True)
    drop = dt.Dropout(0.5)
    drop.p = p
    with pytest.raises(ValueError, match="between 0 and 1"):
        drop(torch.ones(3))


@pytest.mark.parametrize("module", OF_TORCH)
def test_modules_are_those_of_torch_to_programs_that_look(module):
    theirs = getattr(nn, module.__name__)
    drop = module(0.25, True)
    assert isinstance(drop, theirs)
    assert repr(drop) == repr(theirs(0.25, True))
    assert drop.state_dict() == theirs(0.25, True).state_dict()


def test_the_representation_says_where_masks_come_from():
    drop = dt.Dropout(0.5, seed=1, row_offset=4)
    drop(torch.ones(3))
    assert repr(drop) == "Dropout(p=0.5, inplace=False, next_stream=1, row_offset=4)"


def test_a_module_of_torch_becomes_ours_by_its_class():
    drop = nn.Dropout(0.3)
    drop.__class__ = dt.Dropout
    torch.manual_seed(1)
    y = drop(torch.ones(50))
    torch.manual_seed(1)
    assert torch.equal(y, dt.Dropout(0.3)(torch.ones(50)))


class Mine(torch.Tensor):
    pass


def test_other_tensors_go_to_torchs_own_functions():
    assert dt.Dropout(0.5, seed=1)(torch.ones(6, 2, device="meta")).is_meta
    assert dt.DropPath(0.5, seed=1)(torch.ones(6, 2, device="meta")).is_meta
    torch.manual_seed(0)
    y = dt.Dropout(0.5, seed=1)(X.as_subclass(Mine))
    torch.manual_seed(0)
    assert type(y) is Mine
    assert torch.equal(y, nn.Dropout(0.5)(X))


@pytest.mark.parametrize("x", [X.to(torch.complex64), X.to_sparse(), X.long()])
def test_what_torch_refuses_is_refused_in_its_words(x):
    errors = []
    for module in (nn.Dropout, dt.Dropout):
        with pytest.raises(RuntimeError) as error:
            module(0.5)(x)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_negated_view_changes_nothing(dtype, backend):
    for shape in ((9,), (3, 4)):
        x = torch._neg_view(torch.randn(shape).to(dtype))
        for part in (x, x[:2], x.mT if x.dim() == 2 else x[1:]):
            y = dt.Dropout(0.5, seed=1)(part)
            assert torch.equal(y, dt.Dropout(0.5, seed=1)(part.resolve_neg()))


LAYOUTS = {
    "C": lambda x: x,
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "with gaps": lambda x: torch.stack([x, x], -1)[..., 0],
}


@pytest.mark.parametrize("n", [2, 40])  # channels: masks are made again, or kept
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_result_may_be_written_to(layout, dtype, n, backend):
    for module in (dt.Dropout, dt.Dropout2d, dt.Dropout3d, dt.DropPath):
        x = LAYOUTS[layout]((torch.rand(2, n, 40, 50) + 0.5).to(dtype)).requires_grad_()
        y = module(0.5, seed=3)(x)
        expected = module(0.5, seed=3)(x).detach() * 2 + 1
        y.mul_(2).add_(1)
        assert torch.equal(y, expected)
        y.sum().backward()
        assert torch.equal(x.grad != 0, y != 1)
        if module is not dt.Dropout3d:  # which gives a view of one sample, as PyTorch's does
            with torch.no_grad():
                y = module(0.5)(x)
            y.add_(x).detach_()


def test_empty_tensors_of_any_strides_are_taken():
    for x in (
        torch.randn(2, 3, 4).permute(2, 1, 0)[:0],
        torch.randn(2, 3, 4).permute(2, 1, 0)[:, :0],
    ):
        x.requires_grad_()
        for module in (dt.Dropout(0.5), dt.AlphaDropout(0.5), dt.DropPath(0.5)):
            y = module(x)
            assert y.shape == x.shape
            y.backward(torch.empty(y.shape[::-1]).permute(2, 1, 0))
    drop = dt.Dropout(0.5)
    drop(torch.randn(0, 4, requires_grad=True)).backward(torch.empty(4, 0).T)


@pytest.mark.parametrize(
    "shape", [(3,), (9, 4), (9, 4, 5), (9, 4, 5, 2), (2, 9, 3, 2, 2), (9,) * 6]
)
def test_dropout3d_drops_what_pytorch_drops(shape):
    whole = (0,) if len(shape) != 5 else (0, 1)
    rest = tuple(i for i in range(len(shape)) if i not in whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in (nn.Dropout3d, dt.Dropout3d):
            y = kind(0.5)(torch.ones(shape))
            assert torch.equal(y.amax(rest) if rest else y, y.amin(rest) if rest else y)
            assert set(y.unique().tolist()) <= {0.0, 2.0}
            assert len(y.unique()) == 2 or y.shape[0] < 9


def test_a_complex_part_and_a_default_device_change_nothing():
    x = torch.view_as_complex(torch.randn(9, 2)).conj().imag
    assert x.is_neg()
    assert torch.equal(dt.Dropout(0.5, seed=1)(x), dt.Dropout(0.5, seed=1)(x.resolve_neg()))
    with torch.device("meta"):
        y = dt.Dropout(0.5, seed=1)(x)
        assert dt.Dropout(0.5)(x).device.type == "cpu"
    assert torch.equal(y, dt.Dropout(0.5, seed=1)(x))


def test_the_input_stays_as_it_is():
    x = torch.randn(3, 4)
    before = x.clone()
    y = dt.Dropout(0.5)(x)
    y.zero_()
    assert torch.equal(x, before)
    assert dt.Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("module", [dt.Dropout2d, dt.FeatureAlphaDropout])
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_channels_need_two_dimensions(module):
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        module(0.5)(torch.ones(3))


def test_autocast_leaves_the_dtype():
    drop = dt.Dropout(0.5, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = drop(nn.Linear(4, 4)(torch.ones(3, 4)))
        assert y.dtype == torch.bfloat16
        assert drop(torch.ones(3)).dtype == torch.float32
    y.float().sum().backward()


def test_the_import_leaves_the_compiler_alone():
    code = "import dropwise.torch, sys; print('torch._dynamo' in sys.modules)"
    assert run_python(code) == "False\n"


def test_the_import_says_what_is_missing(tmp_path):
    (tmp_path / "torch.py").write_text("")  # so old that it has nothing that is needed
    code = """
try:
    import dropwise.torch
except ImportError as error:
    print(error)
"""
    assert "needs PyTorch 2.5 or newer: pip install 'dropwise[torch]'" in run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + code
    )
