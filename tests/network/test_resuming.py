"""Training that is killed and goes on from its checkpoint ends as if nothing had happened."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dropwise as dw
from networks import network, train

TOTAL = 12

# A script as a user writes it: it makes a network, or goes on from the file that is there.
SCRIPT = """
import os, sys, time
import numpy as np
import dropwise as dw

checkpoint, case, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
x, y = dw.datasets.spiral_data(40, 3, seed=0)
dropout, options = {
    "full batch": ({"rate": 0.4}, {"batch_size": None}),
    "batches": ({"rate": 0.5}, {"batch_size": 32}),
    "replayed": ({"rate": 0.25, "save_mask": False}, {"batch_size": 50, "optimizer": "sgd"}),
    "by column": ({"rate": 0.3, "noise_shape": (1, None)}, {"batch_size": 7, "every": 3}),
    "vanilla": ({"scaling": "vanilla"}, {"shuffle": False, "class_weight": "balanced"}),
    "best": ({"rate": 0.5}, {"batch_size": 32, "restore_best": True, "every": 2}),
    "patience": ({"rate": 0.5}, {"batch_size": 16, "patience": 3, "restore_best": True}),
}[case]
if "best" in case or "patience" in case:
    options["validation_data"] = dw.datasets.spiral_data(20, 3, seed=1)
optimizer = dw.Adam(0.02, decay=1e-3)
if options.pop("optimizer", "adam") == "sgd":
    optimizer = dw.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
if os.path.exists(checkpoint):
    net, optimizer = dw.load_checkpoint(checkpoint)
else:
    net = dw.Sequential(
        [
            dw.Dense(2, 16, l2=1e-3), dw.ReLU(), dw.Dropout(**dropout),
            dw.Sequential([dw.Dense(16, 8), dw.Tanh(), dw.Dropout(0.1)]), dw.Dense(8, 3),
        ],
        seed=3,
    )
run = net.iter_fit(
    x, y, loss=dw.SoftmaxCrossEntropy(), optimizer=optimizer, epochs=12 - net.epochs_done,
    checkpoint=checkpoint, **options,
)
for epoch in run:
    print(epoch.epoch, flush=True)
    time.sleep(3000 * pause if epoch.epoch == 6 else pause)  # to be killed before it ends
mask = net[2].forward(np.ones((5, 16), np.float32))
net.save(checkpoint + ".end", optimizer)
"""

CASES = ["full batch", "batches", "replayed", "by column", "vanilla", "best", "patience"]


def start(checkpoint, case, pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(checkpoint), case, str(pause)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(dw.__file__).parents[1])},
    )


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_ends_bit_for_bit_as_uninterrupted(tmp_path, case):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start(killed, case, pause=0.02) as run:
        # A little after the start of epoch 5, at another moment in each case.
        for _ in range(4):
            assert run.stdout.readline()
        time.sleep(0.03 * CASES.index(case) / len(CASES))
        run.kill()
    assert run.returncode == -signal.SIGKILL
    assert 1 < dw.Sequential.load(killed).epochs_done < TOTAL
    with start(whole, case) as run, start(killed, case) as again:
        assert (run.wait(), again.wait()) == (0, 0)
    assert Path(f"{whole}.end").read_bytes() == Path(f"{killed}.end").read_bytes()
    assert whole.read_bytes() == killed.read_bytes()
    epochs = dw.Sequential.load(killed).epochs_done
    assert epochs < TOTAL if case == "patience" else epochs == TOTAL


def trained(checkpoint=None, epochs=10, net=None, optimizer=None, **options):
    net = network(3) if net is None else net
    x, y = dw.datasets.spiral_data(20, 3, seed=1)
    settings = {"validation_data": (x, y), "batch_size": 50, "optimizer": optimizer or dw.Adam(0.3)}
    train(net, epochs, checkpoint=checkpoint, **(settings | options))
    return net


def same(a, b):
    return a.history == b.history and all(
        np.array_equal(p, q) for (p, _), (q, _) in zip(a.parameters(), b.parameters(), strict=True)
    )


@pytest.mark.parametrize("restore_best", [False, True])
def test_every_checkpoint_of_a_run_with_patience_leads_to_its_end(tmp_path, restore_best):
    # Also the one of the very epoch in which the run ended.
    options = {"patience": 2, "restore_best": restore_best}
    whole = trained(epochs=40, **options)
    ended = len(whole.history)
    assert 3 < ended < 40
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    net = network(3)
    run = net.iter_fit(
        x,
        y,
        loss=dw.SoftmaxCrossEntropy(),
        optimizer=dw.Adam(0.3),
        epochs=40,
        batch_size=50,
        validation_data=dw.datasets.spiral_data(20, 3, seed=1),
        checkpoint=tmp_path / "a",
        **options,
    )
    for epoch, _ in zip(range(1, ended + 1), run, strict=False):
        again, adam = dw.load_checkpoint(tmp_path / "a")
        assert again.epochs_done == epoch
        trained(net=again, optimizer=adam, epochs=40 - epoch, **options)
        assert same(again, whole)


def test_no_epochs_that_are_left_still_restore_the_best(tmp_path):
    whole = trained(restore_best=True, checkpoint=tmp_path / "end")
    net = network(3)
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    run = net.iter_fit(
        x,
        y,
        loss=dw.SoftmaxCrossEntropy(),
        optimizer=dw.Adam(0.3),
        epochs=10,
        batch_size=50,
        validation_data=dw.datasets.spiral_data(20, 3, seed=1),
        restore_best=True,
        checkpoint=tmp_path / "a",
    )
    for _ in range(10):
        next(run)
    again, adam = dw.load_checkpoint(tmp_path / "a")
    trained(net=again, optimizer=adam, epochs=0, restore_best=True, checkpoint=tmp_path / "a")
    assert same(again, whole)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "end").read_bytes()


def test_a_best_epoch_whose_parameters_were_not_kept_is_not_restored():
    net, file = network(3), io.BytesIO()
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    options = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(0.02), "batch_size": 50}
    next(net.iter_fit(x, y, epochs=5, patience=3, **options))
    dw.network.files.save(net, file, options["optimizer"], dw.network.files.Best(0.0, 1))
    again, adam = dw.load_checkpoint(file)
    (epoch,) = again.fit(
        x, y, **(options | {"optimizer": adam}), epochs=1, restore_best=True, progress=False
    )
    plain, adam = dw.load_checkpoint(file)
    plain.fit(x, y, **(options | {"optimizer": adam}), epochs=1, progress=False)
    assert same(again, plain)
    assert epoch.epoch == 2


def test_the_checkpoint_is_that_of_every_nth_epoch_and_of_the_end(tmp_path):
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    seen = []
    net = network(3)
    for _ in net.iter_fit(
        x,
        y,
        loss=dw.SoftmaxCrossEntropy(),
        optimizer=dw.Adam(),
        epochs=7,
        checkpoint=tmp_path / "a",
        every=3,
    ):
        there = (tmp_path / "a").exists()
        seen.append(dw.Sequential.load(tmp_path / "a").epochs_done if there else 0)
    assert seen == [0, 0, 3, 3, 3, 6, 6]
    assert dw.Sequential.load(tmp_path / "a").history == net.history


def test_ctrl_c_leaves_the_last_checkpoint(tmp_path):
    class Stop(dw.SoftmaxCrossEntropy):
        calls = 0

        def forward(self, *arguments, **options):
            self.calls += 1
            if self.calls == 12:
                raise KeyboardInterrupt
            return super().forward(*arguments, **options)

    net, adam = network(3), dw.Adam(0.02)
    with pytest.raises(KeyboardInterrupt):
        train(net, 5, loss=Stop(), optimizer=adam, batch_size=50, checkpoint=tmp_path / "a")
    again, adam = dw.load_checkpoint(tmp_path / "a")
    assert again.epochs_done == net.epochs_done == 2
    train(again, 3, optimizer=adam, batch_size=50)
    assert same(again, trained(epochs=5, optimizer=dw.Adam(0.02), validation_data=None))
