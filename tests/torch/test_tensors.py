"""Tensors that the native backend takes and gives as they are, by the C functions of DLPack."""

from __future__ import annotations

import ctypes
import gc
import threading

import numpy as np
import pytest

import dropwise as dw
from support import require

torch = require("torch")
_native = require("dropwise._native")

import dropwise.torch as dt
from dropwise import _memory
from dropwise.torch import _tensors
from dropwise.torch import functional as F
from dropwise.torch._tensors import Mask

MASK = Mask(0.3, 5, 7, 11)
LARGE = _memory.LARGE // 8  # elements from which on the memory of all dtypes is recycled
SHAPES = [(), (1,), (0,), (3, 0), (0, 3), (7,), (5, 1, 3), (64,), (LARGE - 1,), (2, LARGE), (4097,)]
NUMBERS = (0.5, 2.0, 3, 4, 0)  # rate, scale, key, stream, offset

exchange = _tensors._EXCHANGE
if exchange is None:
    pytest.skip("this version of PyTorch has no C functions of DLPack", allow_module_level=True)


@pytest.fixture
def by_arrays(monkeypatch):
    """Computes as with a version of PyTorch that cannot exchange tensors."""

    def call(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(_tensors, "_EXCHANGE", None)
            return _tensors.dropout(*arguments)

    return call


@pytest.mark.parametrize("dtype", _tensors.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_are_those_of_arrays(shape, dtype, by_arrays):
    x = torch.randn(shape).to(dtype)
    size = (x.numel() + 7) // 8
    bits, expected_bits = (np.full(size, 255, np.uint8) for _ in range(2))
    expected = by_arrays(x, MASK, expected_bits)
    for y in (_tensors.dropout(x, MASK), _tensors.dropout(x, MASK, bits)):
        assert torch.equal(y, expected)
        assert (y.dtype, y.shape, y.stride()) == (dtype, x.shape, torch.empty(shape).stride())
        assert type(y) is torch.Tensor
        assert not y.requires_grad
        assert y.data_ptr() % 64 == 0
    np.testing.assert_array_equal(bits, expected_bits)


def test_what_is_in_a_tensor_before_a_view_does_not_matter(by_arrays):
    x = torch.randn(10, 9)
    for view in (x[3:7], x[2, 4:], x[1, 1], x[:, None][4:5]):
        assert torch.equal(_tensors.dropout(view, MASK), by_arrays(view, MASK))


def test_a_tensor_of_zeros_without_memory_is_taken():
    zeros = torch._efficientzerotensor(5)
    assert zeros.data_ptr() == 0
    assert torch.equal(_tensors.dropout(zeros, MASK), torch.zeros(5))


def test_memory_of_results_that_are_gone_is_used_again():
    x = torch.ones(2 * LARGE)
    gc.collect()
    dw.clear_memory()
    y = dt.Dropout(0.5)(x)
    first, part = y.data_ptr(), y[-5:]
    del y
    other = dt.Dropout(0.5)(x)
    assert other.data_ptr() != first  # the view is still there
    before = _native.kept_blocks()
    del part
    assert _native.kept_blocks() == before + 1
    assert dt.Dropout(0.5)(x).data_ptr() == first


def test_results_end_in_other_threads():
    x = torch.ones(2 * LARGE)
    results = [dt.Dropout(0.5)(x) for _ in range(8)]

    def drop_one():
        results.pop()

    dw.clear_memory()
    threads = [threading.Thread(target=drop_one) for _ in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _native.kept_blocks() == 8


def test_a_result_may_be_written_to():
    y = F.dropout(torch.ones(6), 0.5).fill_(3.0)
    y.numpy()[1] = 5.0
    assert y.tolist() == [3.0, 5.0, 3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (lambda: torch.ones(4, dtype=torch.int32), TypeError, "dtype must be float32"),
        (lambda: torch.ones(4, dtype=torch.complex64), TypeError, "dtype must be float32"),
        (lambda: torch.ones(4, 3).T, ValueError, "in C order"),
        (lambda: torch.ones(4)[::2], ValueError, "in C order"),
        (lambda: torch.ones(1).expand(4), ValueError, "in C order"),
    ],
)
def test_wrong_tensors_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        _native.dropout_of_tensor(exchange, x(), None, *NUMBERS)


def test_wrong_masks_are_refused():
    for bits in (np.zeros(1, np.uint8), np.zeros(9, np.float32), "bits"):
        with pytest.raises(ValueError, match="bits must be"):
            _native.dropout_of_tensor(exchange, torch.ones(64), bits, *NUMBERS)


def test_functions_of_another_kind_are_refused():
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    table = (ctypes.c_uint32 * 16)(2, 0)  # of version 2.0
    newer = new_capsule(ctypes.addressof(table), b"dlpack_exchange_api", None)
    assert _native.can_exchange(exchange)
    assert not _native.can_exchange(newer)
    with pytest.raises(ValueError, match="version of DLPack"):
        _native.dropout_of_tensor(newer, torch.ones(3), None, *NUMBERS)
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        _native.can_exchange(new_capsule(ctypes.addressof(table), b"another", None))
