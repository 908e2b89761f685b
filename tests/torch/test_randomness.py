"""Where masks come from: torch's generator, or a seed of a module."""

from __future__ import annotations

import concurrent.futures
import copy
import io
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import dropwise as dw
from support import require

torch = require("torch")
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import dropwise.torch as dt
from dropwise.random import STREAM_END, key_from_seed
from dropwise.torch import _streams
from dropwise.torch import functional as F

X = torch.ones(500)


def test_manual_seed_and_fork_rng_decide_masks():
    drop = dt.Dropout(0.5)
    torch.manual_seed(1)
    a, b = drop(X), drop(X)
    torch.manual_seed(1)
    with torch.random.fork_rng():
        assert torch.equal(drop(X), a)
    assert torch.equal(drop(X), a)
    assert torch.equal(drop(X), b)
    assert not torch.equal(a, b)


def test_a_call_draws_once_whatever_its_size():
    states = []
    for draw in (
        lambda: torch.randint(1 << 56, (2,)),
        lambda: dt.Dropout(0.5)(X),
        lambda: dt.Dropout(0.1)(torch.ones(300_000, requires_grad=True)),
        lambda: dt.Dropout2d(0.5)(torch.ones(2, 3, 4, 4)),
    ):
        torch.manual_seed(2)
        draw()
        states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_the_numbers_of_a_draw_are_those_of_randint():
    torch.manual_seed(5)
    key, stream = torch.randint(1 << 56, (2,)).tolist()
    torch.manual_seed(5)
    y = dt.Dropout(0.5)(X)
    assert np.array_equal(
        y.numpy() != 0, dw.functional.dropout_mask(X.shape, 0.5, key=key, stream=stream)
    )


@pytest.mark.parametrize("device", [None, "meta"])
def test_a_thread_may_draw_first_in_inference(device):
    """What it keeps for its draws is usable outside, whatever the mode and the default device."""

    def draw():
        torch.set_default_device(device)
        with torch.inference_mode():
            dt.Dropout(0.5)(X)
        torch.set_default_device(None)
        dt.Dropout(0.5)(X.clone().requires_grad_()).sum().backward()
        return True

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(draw).result()


def test_a_seed_leaves_the_generator_alone():
    before = torch.get_rng_state()
    dt.Dropout(0.5, seed=1)(X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [3, np.random.SeedSequence(3), np.random.default_rng(3)])
def test_seeds_are_those_of_the_layers(seed):
    y = dt.Dropout(0.5, seed=copy.deepcopy(seed))(X)
    layer = dw.Dropout(0.5, seed=copy.deepcopy(seed))
    assert np.array_equal(y.numpy(), layer.forward(X.numpy()))


def test_reseed_starts_anew():
    drop = dt.Dropout(0.5, seed=1)
    first = drop(X)
    drop.reseed(1)
    assert torch.equal(drop(X), first)
    drop.reseed(None)
    torch.manual_seed(4)
    y = drop(X)
    torch.manual_seed(4)
    assert torch.equal(y, dt.Dropout(0.5)(X))


def test_a_state_that_functions_share_counts_their_calls():
    state = F.new_state(1)
    a, b = F.dropout(X, state=state), F.dropout(X, state=state)
    drop = dt.Dropout(0.5, seed=1)
    assert torch.equal(drop(X), a)
    assert torch.equal(drop(X), b)
    assert state[1] == 2


def test_threads_take_streams_of_their_own():
    state = F.new_state(1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(_streams.take, state, False) for _ in range(2000)]
        streams = [future.result()[1] for future in futures]
    assert sorted(streams) == list(range(2000))


def test_when_all_streams_are_used_a_seed_says_so():
    drop = dt.Dropout(0.5)
    drop._state = _streams.new_state(1, STREAM_END - 1)
    drop(X)
    with pytest.raises(RuntimeError, match="all 2"):
        drop(X)


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: saved_and_loaded(m)],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_go_on_with_the_same_masks_counted_apart(again):
    drop = dt.Dropout(0.5, seed=1, row_offset=3)
    drop(X)
    other = again(drop)
    assert type(other) is dt.Dropout
    assert other.row_offset == 3
    expected = drop(X)
    assert torch.equal(other(X), expected)


def saved_and_loaded(value, **options):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **({"weights_only": False} | options))


def model(drop, **keywords):
    return nn.Sequential(
        nn.Linear(4, 4), drop(0.5, **keywords), nn.Sequential(drop(0.2, **keywords))
    )


def test_a_state_dict_resumes_the_masks_of_a_seed():
    trained = model(dt.Dropout, seed=1)
    trained(torch.ones(4))
    state = saved_and_loaded(trained.state_dict(), weights_only=True)
    other = model(dt.Dropout, seed=2)
    other.load_state_dict(state)
    assert torch.equal(other(torch.ones(4)), trained(torch.ones(4)))


def test_state_dicts_load_strictly_in_both_directions():
    models = [model(nn.Dropout), model(dt.Dropout), model(dt.Dropout, seed=1)]
    for source in models:
        for target in models:
            assert source.state_dict().keys() == models[0].state_dict().keys()
            target.load_state_dict(source.state_dict(), strict=True)
            target.load_state_dict(dict(source.state_dict()), strict=True)  # has no metadata
    assert torch.equal(models[2][1](X), dt.Dropout(0.5, seed=1)(X))


def test_a_state_of_another_mask_contract_is_refused():
    source = model(dt.Dropout, seed=1)
    state = source.state_dict()
    state._metadata["1"]["dropwise"] |= {"mask_contract": 2}
    with pytest.raises(ValueError, match="the state of 1 is of mask contract version 2"):
        source.load_state_dict(state)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_repeats_the_mask(use_reentrant):
    drop = dt.Dropout(0.5)
    torch.manual_seed(3)
    expected = drop(torch.ones(500))
    torch.manual_seed(3)
    x = torch.ones(500, requires_grad=True)
    weight = torch.ones(500, requires_grad=True)
    y = checkpoint(lambda x, w: drop(x) * w, x, weight, use_reentrant=use_reentrant)
    y.sum().backward()
    assert torch.equal(y, expected)
    assert torch.equal(weight.grad, expected)  # of the recomputed activations
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_of_a_seed_is_refused(use_reentrant):
    drop = dt.Dropout(0.5, seed=1)
    x = torch.ones(500, requires_grad=True)
    y = checkpoint(lambda x: drop(x).sin(), x, use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError, match="activation checkpointing"):
        y.sum().backward()


class Rows(Dataset):
    """A data set that drops elements of its rows."""

    def __init__(self, drop):
        self.drop = drop

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.drop(X)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_workers_of_a_data_loader_have_masks_of_their_own():
    loader = DataLoader(Rows(dt.Dropout(0.5)), batch_size=None, num_workers=2)
    torch.manual_seed(5)
    rows = [tuple(row.tolist()) for row in loader]
    assert len(set(rows)) == 8
    torch.manual_seed(5)
    assert [tuple(row.tolist()) for row in loader] == rows


def test_ranks_have_masks_of_their_own_unless_rows_have_an_offset(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    masks = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        masks.append((dt.Dropout(0.5, seed=1)(X), dt.Dropout(0.5, seed=1, row_offset=0)(X)))
    monkeypatch.undo()
    (first, shared), (second, same) = masks
    assert torch.equal(first, dt.Dropout(0.5, seed=1)(X))
    assert not torch.equal(second, first)
    assert torch.equal(same, shared)


RANK = """
import os, sys, torch, torch.distributed as dist
from torch import nn
import dropwise.torch as dt

rank = int(sys.argv[1])
dist.init_process_group("gloo", store=dist.FileStore(sys.argv[2], 2), rank=rank, world_size=2)
for offset, converted in ((None, False), (3 * rank, False), (None, True), (3 * rank, True)):
    drop = nn.Dropout(0.5) if converted else dt.Dropout(0.5, seed=1, row_offset=offset)
    net = nn.Sequential(nn.Linear(50, 50), drop)
    if converted:
        dt.convert(net, seed=1, row_offset=offset)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    net = nn.parallel.DistributedDataParallel(net)
    for _ in range(2):
        y = net(torch.ones(3, 50))
        y.sum().backward()
    print((y != 0).int().flatten().tolist())  # after two steps, the mask of the second
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_under_distributed_data_parallel(tmp_path):
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        printed = [rank.communicate(timeout=120)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    masks = list(zip(*(map(json.loads, text.splitlines()) for text in printed), strict=True))
    converted = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
    dt.convert(converted, seed=1)
    for drop, (own, parts) in ((dt.Dropout(0.5, seed=1), masks[:2]), (converted, masks[2:])):
        drop(torch.ones(6, 50))
        whole = (drop(torch.ones(6, 50)) != 0).int().flatten().tolist()
        assert parts[0] + parts[1] == whole
        assert own[0] == whole[:150]
        assert own[1] != own[0]


def test_the_key_of_a_rank_is_spawned_from_that_of_the_seed():
    key = key_from_seed(1)
    assert _streams.key_of_rank(key, 0) == key
    assert len({_streams.key_of_rank(key, rank) for rank in range(100)}) == 100
