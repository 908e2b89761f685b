"""What is particular to the Numba backend; other tests run over both backends."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import dropwise
from dropwise._backends.protocol import Product
from support import require, run_python

require("numba")
from dropwise._backends.numba import NumbaBackend, compilation, products  # noqa: E402


@pytest.fixture
def numba():
    return NumbaBackend()


def _integers(rng, shape, dtype, density=1.0):
    return (rng.integers(-8, 9, shape) * (rng.random(shape) < density)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("density", [0.0, 0.04, 0.5])
@pytest.mark.parametrize("shape", [(1, 64, 64), (5, 65, 67), (70, 130, 3)])
def test_products_are_exact_on_both_sides_of_the_choice_to_skip(numba, shape, density, dtype):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = _integers(rng, (m, k), dtype, density), _integers(rng, (k, n), dtype)
    for left, right in [(a, b), (np.asfortranarray(a), np.asfortranarray(b))]:
        out = np.full((n, m), np.nan, dtype).T
        numba.multiply([Product(left, right, out, skip="a")])
        np.testing.assert_array_equal(out, a @ b)


def test_the_choice_to_skip_falls_on_sparse_products_only():
    b = np.ones((100, 100), np.float32)
    a = np.zeros((100, 100), np.float32)
    assert products._worth_skipping(a, b)
    assert not products._worth_skipping(a, b[:, :10])
    assert not products._worth_skipping(a + 1, b)


@pytest.mark.parametrize("columns", [2, 64])  # too few to skip, and enough
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_skipped_zero_against_a_non_finite_value_counts_for_nothing(numba, bad, columns):
    a = np.zeros((3, 64), np.float32)
    a[:, 1] = [1, 2, 0]
    b = np.ones((64, columns), np.float32)
    b[0], b[1, 0] = bad, 0
    out = np.empty((3, columns), np.float32)

    numba.multiply([Product(a, b, out, skip="a")])
    np.testing.assert_array_equal(out[:, 0], [0, 0, 0])
    np.testing.assert_array_equal(out[:, 1], [1, 2, 0])

    a[0, 1] = bad
    numba.multiply([Product(a, b, out, skip="a")])
    assert np.isnan(out[0, 0])
    numba.multiply([Product(a, b, out, skip="ab")])
    assert out[0, 0] == 0

    numba.multiply([Product(a, b, out)])
    assert np.isnan(out).all()


def test_a_kernel_compiles_where_it_cannot_be_kept():
    namespace = {}
    exec("def increment(x):\n    return x + 1", namespace)  # no file, hence no place for a cache
    assert compilation.kernel(namespace["increment"])(1) == 2


def test_a_kernel_on_disk_is_compiled_anew_when_the_file_of_one_it_calls_changes(tmp_path):
    ignored = shutil.ignore_patterns("_native*", "__pycache__")
    shutil.copytree(Path(dropwise.__file__).parent, tmp_path / "dropwise", ignore=ignored)
    code = "import dropwise as dw; print(dw.functional.dropout([1.0] * 3, 0.0, key=1).tolist())"
    env = {"PYTHONPATH": str(tmp_path), "DROPWISE_BACKEND": "numba"}
    assert run_python(code, **env) == "[1.0, 1.0, 1.0]\n"
    assert list(tmp_path.rglob("masks.dropout*.nbi"))
    elements = tmp_path / "dropwise/_backends/numba/elements.py"
    text = elements.read_text()
    assert text.count("lambda x, scale: x * scale") == 1
    elements.write_text(text.replace("lambda x, scale: x * scale", "lambda x, scale: x + scale"))
    assert run_python(code, **env) == "[2.0, 2.0, 2.0]\n"
