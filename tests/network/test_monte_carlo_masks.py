"""Monte Carlo dropout, exactly: a NumPy model on the masks of documented streams and offsets."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise.network import monte_carlo
from networks import chain, dropouts, family, sample
from numpy_model import model_of

pytestmark = pytest.mark.usefixtures("backend")


def assert_is_the_model(net, x, n, tolerance=1e-11):
    want_mean, want_std = model_of(net).predict_mc(x, n)
    before = [d.state_dict()["next_stream"] for d in dropouts(net)]
    mean, std = net.predict_mc(x, n)
    np.testing.assert_allclose(mean, want_mean, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(std, want_std, rtol=tolerance, atol=1e2 * tolerance)
    after = [d.state_dict()["next_stream"] for d in dropouts(net)]
    assert after == [stream + 1 for stream in before]
    return std


class PlainDropout(dw.Dropout):
    """A subclass that changes nothing."""


def nested(noise_shape=None, dropout=dw.Dropout):
    def drop(seed):
        return dropout(0.4, noise_shape=noise_shape, seed=seed)

    inner = dw.Sequential([*chain("8 8 R"), drop(1), dw.Sequential([dw.Tanh(), drop(2)])])
    return dw.Sequential([*chain("5 8 R"), drop(3), inner, *chain("8 3")])


NETWORKS = {
    "one": lambda noise: dw.Sequential(chain("5 8 R D 3", noise_shape=noise)),
    "two": lambda noise: dw.Sequential(chain("5 8 R D 8 R D 3", noise_shape=noise)),
    "first": lambda noise: dw.Sequential(chain("5 D 8 D R 3", noise_shape=noise)),
    "last": lambda noise: dw.Sequential(chain("5 8 R 8 R D", noise_shape=noise)),
    "vanilla": lambda noise: dw.Sequential(
        chain("5 8 R D 8 D 3", noise_shape=noise, scaling="vanilla", save_mask=False)
    ),
    "nested": nested,
    "nested subclasses": lambda noise: nested(noise, PlainDropout),
}


def of_family(name, **options):
    """A network with this relative of Dropout in three places."""
    first, second, last = (family(8, seed=i, **options)[name]() for i in range(3))
    inner = dw.Sequential([dw.Tanh(), second, *chain("8 8")])
    return dw.Sequential([*chain("5 8 R"), first, *chain("8 8 R D"), inner, last])


@pytest.mark.parametrize("name", family(8))
@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_predict_mc_of_the_relatives_is_numpy_on_the_documented_masks(name, rate, monkeypatch):
    for rows, n in [(7, 5), (3, 40), (1, 1), (0, 3)]:
        assert_is_the_model(of_family(name, rate=rate), sample(rows, 5), n)
        x = sample(12, 5).reshape(3, 4, 5)
        assert_is_the_model(of_family(name, rate=rate), x, n)
    results = []
    for at_once in (1, 2, 5, 7, 64, 1024):
        monkeypatch.setattr(monte_carlo, "ROWS_AT_ONCE", at_once)
        results.append(of_family(name).predict_mc(sample(9, 5), 6))
    for result in results:
        np.testing.assert_allclose(result, results[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("noise_shape", [None, (1, None), (None, 1), (1, 1)])
@pytest.mark.parametrize("name", NETWORKS)
def test_predict_mc_is_numpy_on_the_documented_masks(name, noise_shape):
    net = NETWORKS[name](noise_shape)
    for rows, n in [(7, 5), (3, 40), (1, 1)]:
        std = assert_is_the_model(net, sample(rows, 5), n)
        if n > 30:  # samples are independent of each other, also where rows share masks
            assert std.max() > 0


@pytest.mark.parametrize("noise_shape", [None, (1, None), (None, 1)])
@pytest.mark.parametrize(("rows", "n"), [(1100, 3), (2, 1100), (3, 1030)])
def test_more_rows_and_samples_than_are_computed_at_once(rows, n, noise_shape):
    net = dw.Sequential(chain("5 8 R D 8 D 3", noise_shape=noise_shape))
    assert_is_the_model(net, sample(rows, 5), n)


@pytest.mark.parametrize("noise_shape", [None, (1, 1, None), (1, None, None), (None, None, 1)])
def test_rows_that_are_matrices(noise_shape):
    net = dw.Sequential(chain("5 8 R D 3 D", noise_shape=noise_shape))
    assert_is_the_model(net, sample(12, 5).reshape(3, 4, 5), 6)


@pytest.mark.parametrize("noise_shape", [None, (1, None)])
@pytest.mark.parametrize("name", NETWORKS)
def test_how_rows_and_samples_are_cut_changes_nothing(name, noise_shape, monkeypatch):
    x, results = sample(9, 5), []
    for at_once in (1, 2, 5, 7, 64, 1024):
        monkeypatch.setattr(monte_carlo, "ROWS_AT_ONCE", at_once)
        results.append(NETWORKS[name](noise_shape).predict_mc(x, 6))
    for result in results:
        np.testing.assert_allclose(result, results[0], rtol=1e-12, atol=1e-13)


class Noisy(dw.Dropout):
    """A dropout with a forward of its own."""

    def forward(self, x, training=True):
        return super().forward(x, training) + 0.0


def test_a_dropout_with_a_forward_of_its_own_gives_independent_samples(monkeypatch):
    monkeypatch.setattr(monte_carlo, "ROWS_AT_ONCE", 8)
    drop = Noisy(0.5, seed=1)
    net = dw.Sequential([*chain("5 40"), drop, *chain("40 3")])
    x, seen = np.repeat(sample(1, 5), 4, axis=0), []
    first = net.predict_mc(x, 40, transform=lambda y: (seen.append(y.copy()), y)[1])
    pieces = np.concatenate(seen)
    assert len(np.unique(pieces[:, 0])) == 160  # no mask of one piece is that of another
    assert (net.predict_mc(x, 40)[0] != first[0]).any()
    again = dw.Sequential([*chain("5 40"), Noisy(0.5, seed=1), *chain("40 3")])
    np.testing.assert_array_equal(again.predict_mc(x, 40), first)


def test_predict_mc_leaves_backward_the_masks_and_a_copy_in_step():
    net = nested()
    y = net.forward(sample(4, 5))
    dx = net.backward(y)
    masks = [drop.mask for drop in dropouts(net)]
    net.predict_mc(sample(3, 5), 7)
    np.testing.assert_array_equal(net.backward(y), dx)
    for drop, mask in zip(dropouts(net), masks, strict=True):
        np.testing.assert_array_equal(drop.mask, mask)


def test_a_transform_that_raises_takes_no_stream():
    def fail(_):
        raise KeyboardInterrupt

    net = nested()
    before = net.state_dict()
    with pytest.raises(KeyboardInterrupt):
        net.predict_mc(sample(4, 5), 7, transform=fail)
    np.testing.assert_equal(net.state_dict(), before)
    assert_is_the_model(net, sample(4, 5), 7)
