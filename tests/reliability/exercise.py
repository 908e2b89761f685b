"""Calls every kernel of the native module with sizes from the edges; valgrind looks on.

DROPWISE_ISA=scalar PYTHONMALLOC=malloc valgrind python3 tests/reliability/exercise.py
"""

from __future__ import annotations

import numpy as np

import dropwise as dw
from dropwise import _native
from dropwise import functional as F


def main() -> None:
    rng = np.random.default_rng(0)
    dw.set_num_threads(2)
    for dtype in ("float16", "float32", "float64"):
        for n in (0, 1, 7, 64, 129, 1000, 40_000):
            x = rng.integers(-3, 4, n).astype(dtype)
            mask = F.dropout_mask(n, 0.3, key=1, offset=5)
            F.dropout_backward(F.dropout(x, 0.3, key=1), 0.3, mask=mask)
            F.relu(x)
    for dtype in ("float32", "float64"):
        for m, k, n in ((1, 1, 1), (3, 70, 5), (65, 200, 129), (130, 1, 9), (40, 300, 3)):
            a = rng.integers(-3, 4, (m, k)).astype(dtype)
            b = rng.integers(-3, 4, (k, n)).astype(dtype)
            for density in (0.02, 0.5, 1.0):
                sparse = a * (rng.random(a.shape) < density).astype(dtype)
                want = sparse @ b
                np.testing.assert_array_equal(F.matmul(sparse, b), want)
                np.testing.assert_array_equal(F.matmul(b.T, sparse.T), want.T)
    net = dw.Sequential(
        [dw.Dense(30, 70), dw.ReLU(), dw.Dropout(0.5), dw.Dense(70, 50), dw.ReLU(),
         dw.Dropout(0.2, noise_shape=(1, None)), dw.Dense(50, 3)], seed=1,
    )  # fmt: skip
    x, y = rng.standard_normal((150, 30)), rng.integers(0, 3, 150)
    for optimizer in (dw.Adam(), dw.SGD(0.01), dw.SGD(0.01, momentum=0.9)):
        options = {"optimizer": optimizer, "epochs": 1, "batch_size": 70, "progress": False}
        net.fit(x, y, loss=dw.SoftmaxCrossEntropy(), **options)
    net.predict_mc(x, 3)
    print(_native.active_isa())


if __name__ == "__main__":
    main()
