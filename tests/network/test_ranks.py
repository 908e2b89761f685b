"""Training on several ranks ends in the bits of one, whoever computes which rows."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import dropwise as dw
from dropwise.cli.spiral import AsPrinted
from dropwise.losses import HalfPoissonDeviance, ScaledLoss
from dropwise.network.replay import Replay
from networks import dropouts, family
from ranks_in_threads import results_of
from support import require, run_python

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 6))
CLASSES = RNG.integers(0, 4, 300)
VALUES = RNG.standard_normal((300, 4))
SIZES = (1, 2, 3, 4, 7)


def net_of(*middle, dtype="float32", seed=3):
    """Six columns in, four out; what is between is made anew for each network."""
    layers = [dw.Dense(6, 20, l2=0.01, bias_l1=0.02, dtype=dtype), dw.ReLU()]
    layers += [layer() for layer in middle]
    return dw.Sequential([*layers, dw.Dense(20, 4, dtype=dtype)], seed=seed)


def trained(net, comm=None, **options):
    """Everything that training decides, as something to compare."""
    optimizer = options.pop("optimizer", None) or dw.Adam(0.01)
    defaults = {"loss": dw.SoftmaxCrossEntropy(), "batch_size": 130, "epochs": 2, "block_rows": 16}
    x, y = options.pop("data", (X, CLASSES))
    options = {**defaults, **options}
    options["loss"] = copy.copy(options["loss"])  # other ranks are other processes
    history = net.fit(x, y, optimizer=optimizer, comm=comm, progress=False, **options)
    state = {
        k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in net.state_dict().items()
    }
    kept = {
        k: v.tobytes() if isinstance(v, np.ndarray) else v
        for k, v in optimizer.state_dict().items()
    }
    return state, kept, history


def check_same_for_any_ranks(make, sizes=SIZES, **options):
    want = trained(make(), **options)
    for size in sizes:
        for got in results_of(size, lambda comm: trained(make(), comm, **options)):
            assert got == want, f"{size} ranks"
    return want


MIDDLES = {
    "nothing": (),
    "dropout": (lambda: dw.Dropout(0.5),),
    "dropout of columns": (lambda: dw.Dropout(0.5, noise_shape=(1, None)),),
    "dropout of rows": (lambda: dw.Dropout(0.5, noise_shape=(None, 1)),),
    "vanilla dropout": (lambda: dw.Dropout(0.5, scaling="vanilla"),),
    "masks made again": (lambda: dw.Dropout(0.3, save_mask=False),),
    "tanh": (dw.Tanh, lambda: dw.Dropout(0.3)),
    "sigmoid": (dw.Sigmoid,),
    "a network": (lambda: dw.Sequential([dw.Tanh(), dw.Dropout(0.4)]),),
}


@pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)
def test_any_number_of_ranks_ends_in_the_same_bits(backend, middle):
    check_same_for_any_ranks(lambda: net_of(*middle))


@pytest.mark.parametrize("inner", [True, False])
def test_so_it_does_with_layers_between(inner):
    def make():
        between = [dw.Dropout(0.5), dw.Dense(20, 30, l2=0.1), dw.ReLU(), dw.Dense(30, 20)]
        return net_of(
            *((lambda: dw.Sequential(between),) if inner else [lambda a=a: a for a in between])
        )

    check_same_for_any_ranks(make)


@pytest.mark.parametrize("name", sorted(family(20)))
def test_so_it_does_with_every_kind_of_dropout(name):
    make = family(20)[name]
    check_same_for_any_ranks(lambda: net_of(make, dtype="float64"), sizes=(3, 7))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_so_it_does_for_every_dtype(dtype):
    if dtype == "bfloat16":
        require("ml_dtypes")
    check_same_for_any_ranks(lambda: net_of(lambda: dw.Dropout(0.4), dtype=dtype), sizes=(2, 3))


class PlainReLU(dw.ReLU):
    """Of a class of which a container does not know what dtype comes out."""


def test_so_it_does_for_layers_of_two_dtypes():
    def make():
        wide = [dw.Dense(6, 8, dtype="float64"), PlainReLU(), dw.DropPath(0.1)]
        return dw.Sequential([*wide, dw.Dense(8, 4)], seed=1)

    check_same_for_any_ranks(make, sizes=(2, 3))


def test_so_it_does_with_the_wiring_of_the_printed_listing():
    def make():
        layers = [dw.Dense(6, 20), dw.ReLU(), dw.Dropout(0.3, seed=1), dw.Dense(20, 4, seed=2)]
        net = AsPrinted(layers)
        net.shuffle_key = 7
        layers[0].weight = np.random.default_rng(3).standard_normal((6, 20))
        return net

    check_same_for_any_ranks(make, sizes=(3,))


LOSSES = {  # with whether they have an accuracy
    "classes": (dw.SoftmaxCrossEntropy, CLASSES, True),
    "probabilities": (dw.SoftmaxCrossEntropy, np.eye(4)[CLASSES], True),
    "yes or no": (dw.BinaryCrossEntropy, np.eye(4)[CLASSES], True),
    "values": (dw.MeanSquaredError, VALUES, False),
    "half": (lambda: ScaledLoss(dw.MeanSquaredError(), 0.5), VALUES, False),
    "counts": (HalfPoissonDeviance, CLASSES[:, None] * np.ones(4), False),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "y", "has_accuracy"), LOSSES.values(), ids=LOSSES)
def test_so_it_does_with_every_loss(loss, y, has_accuracy, weighted):
    options = {"loss": loss(), "data": (X, y)}
    if weighted:
        options["sample_weight"] = np.where(np.arange(300) < 64, 0, RNG.random(300))
        options["shuffle"] = False  # four blocks of the first batch weigh nothing
    _, _, history = check_same_for_any_ranks(
        lambda: net_of(lambda: dw.Dropout(0.2)), sizes=(2, 5), **options
    )
    assert (history[0].accuracy is not None) == has_accuracy


class AbsoluteError:
    """One of a user's own, which knows no weights."""

    def forward(self, y_pred, y):
        self.difference = y_pred - y
        return float(np.abs(self.difference).mean())

    def backward(self):
        return np.sign(self.difference) / self.difference.size


def test_so_it_does_with_a_loss_of_ones_own():
    check_same_for_any_ranks(
        lambda: net_of(lambda: dw.Dropout(0.2)), loss=AbsoluteError(), data=(X, VALUES)
    )


@hypothesis_settings(max_examples=15)
@given(
    rows=st.integers(1, 90),
    batch=st.one_of(st.none(), st.integers(1, 100)),
    block=st.sampled_from([8, 16, 64, 256]),
    size=st.integers(1, 9),
    shuffle=st.booleans(),
)
def test_so_it_does_for_any_sizes(rows, batch, block, size, shuffle):
    check_same_for_any_ranks(
        lambda: net_of(lambda: dw.Dropout(0.5)),
        sizes=(size,),
        data=(X[:rows], CLASSES[:rows]),
        batch_size=batch,
        block_rows=block,
        shuffle=shuffle,
    )


@pytest.mark.parametrize("dimensions", [(5, 6), (3, 2, 6)])
def test_so_it_does_for_rows_of_several_dimensions(dimensions):
    x = np.random.default_rng(1).standard_normal((40, *dimensions)).astype(np.float32)
    check_same_for_any_ranks(
        lambda: net_of(lambda: dw.Dropout(0.5)),
        sizes=(3,),
        data=(x, x[..., :4].copy()),
        loss=dw.MeanSquaredError(),
        batch_size=17,
        block_rows=8,
    )


def test_so_it_does_with_momentum_and_rows_from_a_file(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    make = lambda: net_of(lambda: dw.Dropout(0.5))  # noqa: E731
    from_file = check_same_for_any_ranks(
        make, sizes=(3,), data=(x, CLASSES), optimizer=None, batch_size=None
    )
    assert from_file == trained(make(), data=(X.astype(np.float32), CLASSES), batch_size=None)


def test_threads_change_nothing(threads):
    make = lambda: net_of(lambda: dw.Dropout(0.5))  # noqa: E731
    with dw.backend("native"):
        results = [trained(make(), batch_size=None, block_rows=32)]
        dw.set_num_threads(1)
        results.append(trained(make(), batch_size=None, block_rows=32))
    assert results[0] == results[1]


def test_figures_validation_and_the_end_are_those_of_one_rank():
    _, _, history = check_same_for_any_ranks(
        lambda: net_of(lambda: dw.Dropout(0.5)),
        epochs=12,
        validation_data=(X[:70], RNG.integers(0, 4, 70), np.linspace(0, 1, 70)),
        patience=2,
        restore_best=True,
    )
    assert len(history) < 12
    assert history[-1].val_accuracy is not None


def test_the_blocks_of_a_batch_sum_to_what_it_gives_in_one_piece():
    for middle in MIDDLES.values():
        divided, whole = net_of(*middle, dtype="float64"), net_of(*middle, dtype="float64")
        history = trained(divided, block_rows=8)[2]
        want = trained(whole, block_rows=None)[2]
        for got, expected in zip(history, want, strict=True):
            np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-12)
            assert got.accuracy == pytest.approx(expected.accuracy, rel=1e-12)
        for p, q in zip(divided.parameter_values(), whole.parameter_values(), strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-7, atol=1e-9)


def test_a_step_takes_one_stream_of_each_dropout_in_every_rank():
    def streams(comm):
        net = net_of(lambda: dw.Dropout(0.5), lambda: dw.DropConnect(20, 20, 0.3))
        trained(net, comm, batch_size=20, block_rows=16, epochs=1)  # two blocks, seven ranks
        return [
            getattr(layer, "_dropout", layer)._streams.next_stream
            for layer in dropouts(net)
        ]  # fmt: skip

    assert results_of(7, streams) == [[15, 15]] * 7


def test_masks_are_those_of_the_whole_batch():
    """With the rate near 1 a gradient is 0 but where a unit was kept."""

    def gradient(comm=None, block_rows=None):
        net = dw.Sequential([dw.Dense(6, 50), dw.Dropout(0.99), dw.Dense(50, 4)], seed=5)
        net.fit(
            X[:60], CLASSES[:60], loss=dw.SoftmaxCrossEntropy(), optimizer=dw.SGD(0.0),
            batch_size=None, comm=comm, block_rows=block_rows, progress=False,
        )  # fmt: skip
        return net[2].grad_weight != 0

    want = gradient()
    assert 0 < want.any(axis=1).sum() < 50
    for got in results_of(3, lambda comm: gradient(comm, 8)):
        np.testing.assert_array_equal(got, want)


def test_the_first_rank_alone_shows_progress_and_saves(tmp_path, monkeypatch):
    from dropwise.network import files, training

    shown, saved = [], []
    monkeypatch.setattr(training, "progress_bar", lambda total: shown.append(total))
    monkeypatch.setattr(files, "save", lambda network, *rest: saved.append(network))

    def run(comm):
        net = net_of()
        net.fit(
            X, CLASSES, loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(0.01), comm=comm,
            epochs=2, checkpoint=tmp_path / "checkpoint.npz",
        )  # fmt: skip
        return net

    nets = results_of(3, run)
    assert shown == [2]
    assert saved == [nets[0], nets[0]]


@pytest.mark.parametrize("sizes", [(4, 2), (4, 1), (1, 3)])
def test_a_checkpoint_goes_on_with_other_ranks(tmp_path, sizes):
    first, second = sizes
    options = {"validation_data": (X[:50], CLASSES[:50]), "patience": 9, "restore_best": True}
    make = lambda: net_of(lambda: dw.Dropout(0.5))  # noqa: E731
    want = trained(make(), epochs=4, **options)
    path = tmp_path / "checkpoint.npz"

    class Stop(Exception):
        pass

    def until_the_third(comm):
        run = make().iter_fit(
            X, CLASSES, loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(0.01), batch_size=130,
            epochs=4, comm=comm, block_rows=16, checkpoint=path, every=2, **options,
        )  # fmt: skip
        for epoch in run:
            if epoch.epoch == 3:
                break

    def go_on(comm):
        net, optimizer = dw.load_checkpoint(path)
        state, kept, _ = trained(net, comm, optimizer=optimizer, epochs=2, **options)
        return state, kept, net.history

    results_of(first, until_the_third)
    for state, kept, history in results_of(second, go_on):
        assert (state, kept, history) == want


def test_what_was_in_the_network_before_does_not_matter():
    """A backward and a forward that were made apart, in one rank alone."""

    def run(comm, disturbed):
        net = net_of(lambda: dw.Dropout(0.5))
        if disturbed:
            net.forward(X[:5], training=False)
            net.backward(np.ones((5, 4)))
        result = trained(net, comm)
        assert not any(dense.sums_parts for dense in (net[0], net[-1]))
        return result

    results = results_of(3, lambda comm: run(comm, comm.Get_rank() == 1))
    assert results[0] == results[1] == results[2]


TWO_RANKS = """
import dropwise as dw
from dropwise.network.ranks import Ranks

class TwoOfOneMachine:
    "The first of two ranks; the other is another process with the same cores."
    def Get_rank(self): return 0
    def Get_size(self): return 2
    def Is_inter(self): return False
    def allgather(self, value): return [value, (value[0], value[1] + 1, *value[2:])]
    Alltoallv = Allgatherv = Allreduce = Abort = allgather

before = dw.get_num_threads()
Ranks(TwoOfOneMachine()).share_cores()
print(before, dw.get_num_threads())
"""


@pytest.mark.parametrize("asked", ["", "3"])
def test_ranks_of_one_machine_share_its_cores_unless_threads_were_asked_for(asked):
    require("dropwise._native")
    env = {"DROPWISE_BACKEND": "native", "DROPWISE_NUM_THREADS": asked, "OMP_NUM_THREADS": ""}
    before, after = map(int, run_python(TWO_RANKS, **env).split())
    assert after == (3 if asked else max(1, before // 2))


def test_steps_that_are_replayed_have_the_bits_of_those_that_are_not(backend, monkeypatch):
    made = []
    whole = Replay.__init__

    def counted(self, *arguments):
        made.append(self)
        whole(self, *arguments)

    monkeypatch.setattr(Replay, "__init__", counted)
    options = {"batch_size": 100, "epochs": 3}  # three equal steps in each
    got = trained(net_of(lambda: dw.Dropout(0.5)), **options)
    assert len(made) == 1
    monkeypatch.setattr(Replay, "forward", lambda self, *_: None)
    assert trained(net_of(lambda: dw.Dropout(0.5)), **options) == got


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [17, 33, 257])  # the last block has one row
def test_a_row_that_is_alone_in_its_block_is_computed_as_among_others(rows, dtype):
    def make():
        middle = [dw.Dropout(0.5, noise_shape=(1, None)), dw.Dense(20, 64, dtype=dtype), dw.ReLU()]
        more = [dw.Dropout(0.5, noise_shape=(1, None)), dw.Dense(64, 20, dtype=dtype)]
        return net_of(*(lambda a=a: a for a in middle + more), dtype=dtype)

    data = X[:rows], CLASSES[:rows]
    block = 8 if rows < 100 else 256
    options = {"data": data, "batch_size": None, "epochs": 5, "block_rows": block}
    check_same_for_any_ranks(make, sizes=(1, 2, 3), **options)
