"""What the tests let mpirun run: job.py TASK.  The first rank prints the results of all as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import numpy as np
from mpi4py import MPI

import dropwise as dw

COMM = MPI.COMM_WORLD
RNG = np.random.default_rng(0)
X = RNG.standard_normal((500, 20)).astype(np.float32)
Y = RNG.integers(0, 10, 500)


def deep(dtype="float32"):
    layers = [dw.Dense(20, 64, l2=1e-3, dtype=dtype), dw.ReLU(), dw.Dropout(0.5)]
    layers += [dw.Dense(64, 70, dtype=dtype), dw.ReLU(), dw.Dropout(0.3)]
    return dw.Sequential([*layers, dw.Dense(70, 10, dtype=dtype)], seed=3)


def nested():
    inner = dw.Sequential([dw.DropConnect(20, 30, 0.4), dw.Tanh(), dw.SpatialDropout(0.2)])
    return dw.Sequential([inner, dw.Dense(30, 10)], seed=5)


def fit(net, x=X, y=Y, **options):
    defaults = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(0.01), "batch_size": 200}
    defaults |= {"epochs": 2, "block_rows": 32, "comm": COMM, "progress": False}
    return net.fit(x, y, **{**defaults, **options})


def digest(net):
    return hashlib.sha256(b"".join(p.tobytes() for p in net.parameter_values())).hexdigest()


def exact():
    """What any number of ranks has alike."""
    validation = X[:90], Y[:90]
    found = {}
    for name, net in {"deep": deep(), "nested": nested(), "half": deep("float16")}.items():
        epoch = fit(net, validation_data=validation)[-1]
        found[name] = [digest(net), epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy]
    few = deep()
    fit(few, X[:20], Y[:20])  # fewer blocks than ranks
    return found | {"few": digest(few)}


def others():
    """What all ranks of a job have alike."""
    reduced, half, sharded = deep(), deep("float16"), deep()
    fit(reduced, exact=False)
    fit(half, exact=False)
    part = slice(0, 0) if COMM.rank == 1 else slice(COMM.rank, None, COMM.size)
    fit(sharded, X[part], Y[part], sharded=True)
    return [digest(net) for net in (reduced, half, sharded)]


def disagreement():
    if COMM.size == 1:
        return ""
    try:
        fit(deep(), optimizer=dw.Adam(0.01 if COMM.rank == 0 else 0.02))
    except ValueError as error:
        return str(error)


class Loss(dw.SoftmaxCrossEntropy):
    """Fails in the middle, in the last rank."""

    calls = 0

    def forward(self, *args, **options):
        self.calls += 1
        if self.calls > 20 and COMM.rank == COMM.size - 1:
            if sys.argv[1] == "kill":
                os.kill(os.getpid(), 9)
            raise OSError("the disk is gone")
        return super().forward(*args, **options)


if sys.argv[1] == "train":
    hook = sys.excepthook
    result = {"rank": COMM.rank, "exact": exact(), "others": others(), "said": disagreement()}
    result["hooks"] = sys.excepthook is hook
    results = COMM.gather(result)
    if results is not None:
        print(json.dumps(results))
else:
    fit(deep(), loss=Loss(), epochs=1000)
