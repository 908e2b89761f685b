"""Files of former versions, which every later version reads.  tests/data/networks has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dropwise as dw
from dropwise.network import Epoch, files
from support import require

DATA = Path(__file__).parents[1] / "data" / "networks"

pytestmark = pytest.mark.usefixtures("backend")


def test_format_1_is_what_it_was():
    net, optimizer = dw.load_checkpoint(DATA / "format_1.npz")
    assert optimizer is None
    assert repr(net) == (
        "Sequential([Dense(3, 8, l2=0.001, init='he_normal'), ReLU(), "
        "Dropout(rate=0.25, scaling='vanilla'), Dense(8, 6), "
        "Dropout(rate=0.5, noise_shape=[1, None], save_mask=False), "
        "Sequential([Dense(6, 4, skip_zeros=False), ReLU()]), Dense(4, 2)])"
    )
    assert (net.epochs_done, net.history, net.notes) == (3, [], {})
    assert net.shuffle_key == 0xAF4C069D0100B467
    streams = {"mask_contract": 1, "key": "0x17f1fde7bf54e042", "next_stream": 9}
    assert net[2].state_dict() == streams
    assert net[4].state_dict() == streams | {"key": "0x79f03193e6187234"}
    with np.load(DATA / "format_1.npz", allow_pickle=False) as file:
        for name, value in net.state_dict().items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, file[name], strict=True)


def test_a_network_of_format_1_predicts_what_it_did():
    net = dw.Sequential.load(DATA / "format_1.npz")
    x = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
    want = [
        [-0.7228134870529175, 0.07809300720691681],
        [-0.0844673439860344, 0.05359913036227226],
        [-0.0920046791434288, 0.0555778369307518],
    ]
    np.testing.assert_allclose(net.predict(x[:3]), want, rtol=2e-6)


def plain(state):
    return {
        name: value.astype(float).tolist() if isinstance(value, np.ndarray) else value
        for name, value in state.items()
    }


def test_format_2_is_what_it_was():
    require("ml_dtypes")
    want = json.loads((DATA / "format_2.json").read_text())
    net, adam = files.load(DATA / "format_2.npz")
    assert net.config() == want["config"]
    assert net.notes == want["notes"]
    assert plain(net.state_dict()) == want["network"]
    assert plain(adam.state_dict()) | {"config": adam.config()} == want["optimizer"]
    assert net.history == [Epoch(*figures) for figures in want["history"]]
    assert [epoch.val_loss is None for epoch in net.history] == [True, True, False, False]
    best = want["best"]
    assert (net.unfinished.loss, net.unfinished.epoch) == (best["loss"], best["epoch"])
    assert [p.astype(float).tolist() for p in net.unfinished.parameters] == best["parameters"]


def test_a_network_of_format_2_predicts_what_it_did_and_goes_on():
    require("ml_dtypes")
    want = json.loads((DATA / "format_2.json").read_text())
    net, adam = dw.load_checkpoint(DATA / "format_2.npz")
    x = np.random.default_rng(1).standard_normal((40, 3))
    np.testing.assert_allclose(net.predict(x[:3]), want["predictions"], rtol=1e-2)  # 16 bits
    (epoch,) = net.fit(
        x, (x[:, 0] > 0).astype(int), loss=dw.SoftmaxCrossEntropy(), optimizer=adam, progress=False
    )
    assert epoch.epoch == 5
