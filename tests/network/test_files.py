"""Network files: what is saved, what is loaded, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dropwise as dw
from networks import network, sample, train

pytestmark = pytest.mark.usefixtures("backend")


def test_a_saved_network_goes_on_as_it_would_have(tmp_path):
    net = network(1, l2=0.01)
    train(net, 2, batch_size=50)
    path = tmp_path / "model.npz"
    net.save(path)
    loaded = dw.Sequential.load(path)
    assert repr(loaded) == repr(net)
    x = sample(9, 2, np.float32)
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    assert train(loaded, 2, batch_size=50) == train(net, 2, batch_size=50)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_dtype_is_saved_exactly(tmp_path, dtype):
    net = dw.Sequential([dw.Dense(3, 4, dtype=dtype), dw.Sequential([dw.Dropout(0.2)])], seed=1)
    net.save(tmp_path / "m.npz")
    loaded = dw.Sequential.load(tmp_path / "m.npz")
    assert loaded.layers[0].dtype == net.layers[0].dtype
    np.testing.assert_array_equal(loaded.layers[0].weight, net.layers[0].weight)
    assert loaded.layers[1].state_dict() == net.layers[1].state_dict()


def test_the_file_holds_no_pickle_and_has_the_name_that_was_given(tmp_path):
    path = tmp_path / "model"
    network(1).save(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        json.loads(str(file["dropwise"]))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_layer_of_ones_own_cannot_be_saved(tmp_path):
    class Mine(dw.ReLU):
        pass

    with pytest.raises(TypeError, match=r"Mine\(\) cannot be saved"):
        dw.Sequential([dw.Dense(1, 1), Mine()]).save(tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(
        ValueError, match=r"other\.npz' is not a dropwise file: .*no entry 'dropwise'"
    ):
        dw.Sequential.load(tmp_path / "other.npz")
