"""What ranks refuse before the first step, and how a job ends when one of them fails."""

from __future__ import annotations

import numpy as np
import pytest

import dropwise as dw
from dropwise.network import agreement
from ranks_in_threads import Aborted, Communicator, results_of, run_ranks
from support import require

RNG = np.random.default_rng(2)
X = RNG.standard_normal((60, 6)).astype(np.float32)
Y = RNG.integers(0, 4, 60)


def make(seed=3, hidden=8, rate=0.5, **options):
    layers = [dw.Dense(6, hidden, **options), dw.ReLU(), dw.Dropout(rate), dw.Dense(hidden, 4)]
    return dw.Sequential(layers, seed=seed)


def fit(net, comm=None, x=X, y=Y, **options):
    defaults = {"loss": dw.SoftmaxCrossEntropy(), "optimizer": dw.Adam(0.01), "batch_size": 20}
    return net.fit(x, y, comm=comm, progress=False, **{**defaults, **options})


def message_of(job, size=3):
    """The one message that all ranks raise, with nothing changed and no Abort."""

    def run(comm):
        net = None

        def made(**options):
            nonlocal net
            net = make(**options)
            return net

        with pytest.raises((ValueError, RuntimeError, TypeError)) as caught:
            job(comm, made)
        assert comm._world.aborted == []
        assert net is None or (net.epochs_done, net[2]._streams.next_stream) == (0, 0)
        return str(caught.value)

    messages = set(results_of(size, run))
    assert len(messages) == 1
    return messages.pop()


def odd(comm, usual, other):
    """`other` in the second rank."""
    return other if comm.Get_rank() == 1 else usual


DIFFERENCES = {
    "seed": (lambda c, m: fit(m(seed=odd(c, 3, 4)), c), "network.state.shuffle_key"),
    "no seed": (lambda c, m: fit(m(seed=None), c), "same seed in all ranks"),
    "shape": (lambda c, m: fit(m(hidden=odd(c, 8, 9)), c), "out_features: 9 there, 8 on rank 0"),
    "rate": (lambda c, m: fit(m(rate=odd(c, 0.5, 0.4)), c), "rate: 0.4 there, 0.5 on rank 0"),
    "penalty": (lambda c, m: fit(m(l2=odd(c, 0.0, 0.1)), c), "l2: 0.1 there, none on rank 0"),
    "optimizer": (
        lambda c, m: fit(m(), c, optimizer=odd(c, dw.Adam(0.01), dw.Adam(0.1))),
        "optimizer.learning_rate: 0.1 there, 0.01 on rank 0",
    ),
    "kind of optimizer": (
        lambda c, m: fit(m(), c, optimizer=odd(c, dw.Adam(0.01), dw.SGD(0.01))),
        "optimizer.class: SGD there, Adam on rank 0",
    ),
    "loss": (
        lambda c, m: fit(
            m(), c, y=np.eye(4)[Y], loss=odd(c, dw.SoftmaxCrossEntropy(), dw.MeanSquaredError())
        ),
        "loss.class: dropwise.losses.squared.MeanSquaredError there",
    ),
    "epochs": (lambda c, m: fit(m(), c, epochs=odd(c, 1, 2)), "options.epochs: 2 there, 1 on"),
    "batch": (lambda c, m: fit(m(), c, batch_size=odd(c, 20, None)), "batch_size: None there"),
    "blocks": (lambda c, m: fit(m(), c, block_rows=odd(c, 256, 64)), "block_rows: 64 there"),
    "mode": (lambda c, m: fit(m(), c, exact=odd(c, True, False)), "options.exact: False there"),
    "rows": (lambda c, m: fit(m(), c, x=odd(c, X, X[:50]), y=odd(c, Y, Y[:50])), "data.rows: 50"),
    "values": (lambda c, m: fit(m(), c, x=odd(c, X, X + 1)), "data.values of x"),
    "dtype of y": (lambda c, m: fit(m(), c, y=odd(c, Y, Y.astype(np.int32))), "data.y: int32"),
    "weights": (
        lambda c, m: fit(m(), c, sample_weight=odd(c, None, np.ones(60))),
        "data.weights: True there, False on rank 0",
    ),
    "validation": (
        lambda c, m: fit(m(), c, validation_data=odd(c, (X, Y), None)),
        "validation data.x: none there",
    ),
}


@pytest.mark.parametrize(("job", "named"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_ranks_that_differ_are_told_in_what_before_the_first_step(job, named):
    message = message_of(job)
    assert "the ranks do not agree: rank 1 of 3 differs in" in message
    assert named in message


def test_weights_that_differ_are_found():
    def job(comm, make):
        net = make()
        net[0].weight[0, 0] += odd(comm, 0.0, 1e-7)
        fit(net, comm)

    assert "network.state.0.weight" in message_of(job)


def test_another_backend_is_found():
    for name in ("dropwise._native", "numba"):
        require(name)

    def job(comm, make):
        with dw.backend(odd(comm, "native", "numba")):
            fit(make(), comm)

    assert "versions.backend: numba there, native on rank 0" in message_of(job)


def test_other_versions_instruction_sets_and_cpus_are_found():
    with dw.backend("native"):
        mine = agreement._versions()
    assert {"dropwise", "mask contract", "numpy", "backend", "instruction set", "CPU"} <= set(mine)
    for name in mine:
        assert agreement.differences([mine, mine]) is None
        found = agreement.differences([mine, mine, mine | {name: "another"}])
        assert found == f"rank 2 of 3 differs in {name}: another there, {mine[name]} on rank 0"


def test_an_argument_that_one_rank_refuses_is_refused_by_all():
    def run(comm):
        with pytest.raises(Exception, match="same number of rows, got 60 and 59") as caught:
            fit(make(), comm, y=odd(comm, Y, Y[:59]))
        assert comm._world.aborted == []
        return caught.type

    assert results_of(3, run) == [RuntimeError, ValueError, RuntimeError]


# ---- losses and layers that look at several rows


class Spread:
    """A loss that compares rows with each other."""

    def forward(self, y_pred, y):
        self.centred = y_pred - y_pred.mean(axis=0)
        return float(np.square(self.centred).mean())

    def backward(self):
        return 2 * self.centred / self.centred.size


class Total:
    """The sum over the rows instead of their mean."""

    def forward(self, y_pred, y):
        self.difference = y_pred - np.eye(4)[y]
        return float(np.square(self.difference).sum())

    def backward(self):
        return 2 * self.difference


class Mean(Total):
    """What is asked for."""

    def forward(self, y_pred, y):
        return super().forward(y_pred, y) / len(y)

    def backward(self):
        return super().backward() / len(self.difference)


@pytest.mark.parametrize("loss", [Spread, Total])
def test_a_loss_that_couples_rows_is_refused(loss):
    assert "is not a mean over rows" in message_of(lambda c, m: fit(m(), c, loss=loss()))
    with pytest.raises(ValueError, match="is not a mean over rows"):
        fit(make(), block_rows=16, loss=loss())


def test_a_loss_of_ones_own_that_is_a_mean_over_rows_is_taken():
    results_of(2, lambda comm: fit(make(), comm, loss=Mean()))


def test_a_layer_of_ones_own_is_refused():
    class Doubled(dw.ReLU):
        def forward(self, x, training=True):
            return 2 * super().forward(x, training)

    def run(comm):
        net = dw.Sequential([dw.Dense(6, 4), Doubled()], seed=1)
        with pytest.raises(TypeError, match=r"Doubled\(\) cannot be trained on parts of a batch"):
            fit(net, comm)

    results_of(2, run)


@pytest.mark.parametrize("comm", [3, "world", Communicator, object()])
def test_what_is_no_communicator_is_refused(comm):
    with pytest.raises(TypeError, match="comm must be an intracommunicator of mpi4py"):
        fit(make(), comm)


@pytest.mark.parametrize("block_rows", [0, 12, -8, 2.5, True])
def test_block_rows_must_be_whole_bytes_of_masks(block_rows):
    with pytest.raises((TypeError, ValueError), match="block_rows must be"):
        fit(make(), block_rows=block_rows)


# ---- failures in the middle


class Failing(dw.SoftmaxCrossEntropy):
    """Raises `error`, if there is one, in the middle of training."""

    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, y_pred, y, sample_weight=None):
        self.calls += 1
        if self.error is not None and self.calls > 8:
            raise self.error
        return super().forward(y_pred, y, sample_weight)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError("the disk is gone"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(7), 7),
        (SystemExit(0), 1),
        (SystemExit("why"), 1),
        (MemoryError(), 1),
    ],
)
def test_an_error_in_one_rank_ends_the_job_and_is_printed(error, status, capfd):
    def run(comm):
        loss = Failing(odd(comm, None, error))
        with pytest.raises(Aborted):
            fit(make(), comm, loss=loss, block_rows=8, epochs=3)
        return comm._world.aborted

    aborted = results_of(3, run)
    assert aborted[0] == [(1, status)]
    printed = capfd.readouterr().err
    assert "rank 1 of 3 ends the job:\nTraceback" in printed
    assert f"raise self.error\n{type(error).__name__}" in printed


@pytest.mark.parametrize("with_comm", [False, True])
def test_one_rank_alone_raises_as_always(with_comm):
    def run(comm):
        options = {"loss": Failing(OSError("gone")), "epochs": 3, "block_rows": 8}
        with pytest.raises(OSError, match="gone"):
            fit(make(), comm if with_comm else None, **options)
        return comm._world.aborted

    assert results_of(1, run) == [[]]


def test_a_loss_that_is_not_finite_is_raised_in_all_ranks():
    x = X.copy()
    x[50] = np.inf

    def run(comm):
        net = make()
        with pytest.raises(FloatingPointError, match="epoch 1, batch 3: the loss is nan"):
            fit(net, comm, x=x, shuffle=False, block_rows=8)
        assert comm._world.aborted == []
        return [p.copy() for p in net.parameter_values()]

    results = results_of(3, run)
    for values in results[1:]:
        for p, q in zip(values, results[0], strict=True):
            np.testing.assert_array_equal(p, q)


def test_leaving_the_loop_over_the_epochs_ends_no_job():
    def run(comm):
        run = make().iter_fit(
            X, Y, loss=dw.SoftmaxCrossEntropy(), optimizer=dw.Adam(0.01), epochs=5, comm=comm
        )
        for epoch in run:
            if epoch.epoch == 2:
                break
        run.close()
        return comm._world.aborted

    assert results_of(2, run) == [[], []]


def test_after_an_error_the_layers_add_their_penalties_again():
    net = make(l2=0.1)
    with pytest.raises(OSError, match="gone"):
        fit(net, block_rows=8, loss=Failing(OSError("gone")), epochs=3)
    fresh = make(l2=0.1)
    fresh.load_state_dict(net.state_dict())
    for one in (net, fresh):
        one.backward(np.ones_like(one.forward(X)))
    np.testing.assert_array_equal(net[0].grad_weight, fresh[0].grad_weight)


def test_the_ranks_in_threads_end_together():
    """The communicator of these tests itself: nobody waits for a rank that has failed."""

    def run(comm):
        if comm.Get_rank() == 1:
            raise OSError("gone")
        comm.allgather(1)

    kinds = [type(result) for result in run_ranks(3, run)]
    assert kinds == [Aborted, OSError, Aborted]


def test_a_noise_shape_that_names_the_rows_is_refused_on_any_number_of_ranks():
    def job(comm):
        net = dw.Sequential([dw.Dense(6, 8), dw.Dropout(0.5, noise_shape=(60, 1)), dw.Dense(8, 4)])
        with pytest.raises(ValueError, match="noise_shape names the rows of the whole"):
            fit(net, comm, batch_size=None)

    for size in (1, 3):
        results_of(size, job)


class OwnOptimizer:
    def __init__(self, rate):
        self.current_learning_rate = rate

    def step(self, pairs):
        for p, g in pairs:
            p -= self.current_learning_rate * g


class Slotted:
    __slots__ = ("current_learning_rate",)

    def __init__(self):
        self.current_learning_rate = 0.1

    step = OwnOptimizer.step


def test_an_optimizer_without_a_dict_is_taken():
    results_of(2, lambda comm: fit(make(), comm, optimizer=Slotted()))


class Scaled(dw.MeanSquaredError):
    def __init__(self, by):
        super().__init__()
        self.by = by


def test_optimizers_and_losses_of_ones_own_that_differ_are_found():
    def job(comm, **options):
        given = {name: make(comm.Get_rank()) for name, make in options.items()}
        with pytest.raises(ValueError, match="the ranks do not agree"):
            fit(
                make(), comm, y=np.eye(4)[Y], loss=given.pop("loss", dw.MeanSquaredError()), **given
            )

    results_of(2, lambda comm: job(comm, optimizer=lambda rank: OwnOptimizer(0.1 * (rank + 1))))
    results_of(2, lambda comm: job(comm, loss=lambda rank: Scaled(1.0 + rank)))
