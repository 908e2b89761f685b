"""The spiral job: its data, its wirings, its training."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from command_line import figures, spiral
from dropwise.cli.spiral import AsPrinted, Spiral
from support import require


def test_the_job_is_the_published_one():
    job = Spiral(rate=0.1, wiring="correct", seed=3, hidden=512, dtype="float32")
    for x, y in (job.train, job.test):
        assert x.shape == (3000, 2)
        assert x.dtype == np.float32
        assert y.shape == (3000,)
    both = np.concatenate([job.train[1], job.test[1]])
    assert np.bincount(both).tolist() == [2000, 2000, 2000]
    assert not np.array_equal(job.train[1], np.sort(job.train[1]))  # shuffled
    hidden, _, dropout, output = job.net.layers
    assert hidden.weight.shape == (2, 512)
    assert output.weight.shape == (512, 3)
    assert dropout.config()["rate"] == 0.1
    assert (hidden.l2, hidden.bias_l2, output.l2, output.bias_l2) == (5e-4, 5e-4, 0, 0)
    # 1536 normal weights of deviation 0.01: 5 sigma, 6e-7
    assert abs(output.weight.std() / 0.01 - 1) < 5 / np.sqrt(2 * 1536)
    assert not hidden.bias.any()


@pytest.mark.parametrize("wiring", ["correct", "as-printed"])
def test_training_learns(backend, csv_file, wiring):
    assert spiral("--epochs", 60, "--hidden", 64, "--wiring", wiring, "--csv", csv_file) == 0
    first, last = figures(csv_file)[0], figures(csv_file)[-1]
    assert last[2] < 0.9 * first[2]
    assert last[5] > 0.42  # chance is 0.333; 10 sigma


def test_the_same_seed_gives_the_same_numbers(backend, tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    for path, seed in ((a, 7), (b, 7), (c, 8)):
        assert spiral("--epochs", 12, "--seed", seed, "--csv", path) == 0
    assert a.read_text() == b.read_text()
    assert a.read_text() != c.read_text()


def test_backends_agree_over_the_first_epochs(tmp_path):
    runs = []
    for name in ("native", "numba"):
        require({"native": "dropwise._native", "numba": "numba"}[name])
        assert spiral("--epochs", 30, "--backend", name, "--csv", tmp_path / name) == 0
        runs.append(figures(tmp_path / name))
    np.testing.assert_allclose(runs[0], runs[1], rtol=2e-3, atol=2e-3)


def test_the_choice_of_a_backend_ends_with_the_run():
    before = dw._backends.active()
    for name in dw.available_backends():
        assert spiral("--epochs", 1, "--backend", name) == 0
        assert dw._backends.active() is before


def test_an_absent_backend_is_named(monkeypatch, capsys):
    def use_backend(name):
        raise ImportError(f"backend {name!r} is not available")

    monkeypatch.setattr(dw, "backend", use_backend)
    assert spiral("--epochs", 1, "--backend", "native") == 2
    assert "backend 'native' is not available" in capsys.readouterr().err


def test_as_printed_dropout_acts_in_the_backward_pass_only(backend):
    x = np.random.default_rng(0).standard_normal((40, 2), dtype=np.float32)
    dy = np.random.default_rng(1).standard_normal((40, 3), dtype=np.float32)

    def layers(rate):
        return [
            dw.Dense(2, 8, seed=1),
            dw.ReLU(),
            dw.Dropout(rate, seed=2),
            dw.Dense(8, 3, seed=3),
        ]

    printed, plain = AsPrinted(layers(0.5)), dw.Sequential(layers(0.0))
    np.testing.assert_allclose(printed.forward(x), plain.forward(x), rtol=1e-5, atol=1e-6)
    printed.backward(dy)
    hidden, activation, dropout, output = printed.layers
    kept = 2.0 * dropout.mask * (activation.forward(hidden.forward(x)) > 0)
    np.testing.assert_allclose(
        hidden.grad_weight, x.T @ (kept * (dy @ output.weight.T)), rtol=1e-4, atol=1e-5
    )
    plain.backward(dy)
    np.testing.assert_allclose(
        output.grad_weight, plain.layers[3].grad_weight, rtol=1e-4, atol=1e-5
    )


def test_rate_zero_makes_the_wirings_one(tmp_path):
    for wiring in ("correct", "as-printed"):
        path = tmp_path / wiring
        assert spiral("--epochs", 15, "--rate", 0, "--wiring", wiring, "--csv", path) == 0
    np.testing.assert_allclose(
        figures(tmp_path / "correct"), figures(tmp_path / "as-printed"), rtol=1e-3, atol=1e-3
    )


def test_float64_is_used_throughout():
    job = Spiral(rate=0.1, wiring="correct", seed=0, hidden=4, dtype="float64")
    assert job.train[0].dtype == job.net.predict(job.test[0]).dtype == np.float64
    assert spiral("--epochs", 2, "--dtype", "float64") == 0
