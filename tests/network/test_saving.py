"""Writing files: the old file or the new one is there, whatever happens."""

from __future__ import annotations

import io
import os
import stat
import sys
import zipfile

import numpy as np
import pytest

import dropwise as dw
from networks import network, train
from support import run_python

POSIX = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")


class FullDisk(io.BytesIO):
    """A file that takes some bytes and then no more."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write(self, data):
        if self.tell() + len(data) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_paths_and_open_files_hold_the_same(tmp_path):
    net, adam = network(1), dw.Adam()
    train(net, 1, optimizer=adam)
    file = io.BytesIO()
    net.save(file, adam)
    net.save(tmp_path / "a.npz", adam)
    net.save(str(tmp_path / "b"), adam)
    with open(tmp_path / "c", "wb") as opened:
        net.save(opened, adam)
    for name in ("a.npz", "b", "c"):
        assert (tmp_path / name).read_bytes() == file.getvalue()
    x = np.ones((2, 2))
    for source in (file, tmp_path / "a.npz", str(tmp_path / "b")):
        np.testing.assert_array_equal(dw.Sequential.load(source).predict(x), net.predict(x))
    with open(tmp_path / "c", "rb") as opened:
        np.testing.assert_array_equal(dw.Sequential.load(opened).predict(x), net.predict(x))


def test_a_loaded_network_writes_the_file_that_it_came_from(tmp_path):
    net, adam = network(1), dw.SGD(0.1, momentum=0.5)
    train(net, 2, optimizer=adam)
    net.notes = {"a": [1.5, None], "b": {"c": "é"}}
    net.save(tmp_path / "a", adam)
    again, optimizer = dw.load_checkpoint(tmp_path / "a")
    again.save(tmp_path / "b", optimizer)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_hold_our_arrays_only():
    file = io.BytesIO()
    dw.Sequential([dw.Dense(2, 1)]).save(file)
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    assert names[:3] == ["dropwise", "network.0.weight", "network.0.bias"]
    assert all(name.startswith("history.") for name in names[3:])


def test_settings_may_be_numpy_numbers(tmp_path):
    net = dw.Sequential([dw.Dense(2, 1, l2=np.float32(1e-4), init=np.float64(0.1))], seed=0)
    net.save(tmp_path / "a", dw.Adam(np.float32(0.1)))
    again, adam = dw.load_checkpoint(tmp_path / "a")
    assert again[0].l2 == net[0].l2 == float(np.float32(1e-4))
    assert adam.learning_rate == float(np.float32(0.1))


@pytest.mark.parametrize(
    "wrong", [3, None, b"path", io.StringIO(), np.ones(3)], ids=lambda wrong: type(wrong).__name__
)
def test_what_is_no_file_is_refused(wrong):
    for call in (network().save, dw.Sequential.load, dw.load_checkpoint):
        with pytest.raises(TypeError, match="must be a path or an open binary file, got"):
            call(wrong)


def test_a_folder_is_no_file(tmp_path):
    for call in (network().save, dw.Sequential.load):
        with pytest.raises(OSError, match=r"Is a directory|Permission denied"):
            call(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        network().save(tmp_path / "absent" / "a.npz")
    with pytest.raises(FileNotFoundError, match="absent"):
        dw.Sequential.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("notes", "error"),
    [({"a": object()}, TypeError), ({"a": float("nan")}, ValueError), ({1: 0, "1": 0}, ValueError)],
)
def test_notes_that_a_file_cannot_hold_are_refused(tmp_path, notes, error):
    net = network(0)
    net.notes = notes
    with pytest.raises(error, match="notes cannot be saved as JSON"):
        net.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved_is_refused_before_training(tmp_path):
    class Mine(dw.Sequential):
        pass

    class Slow(dw.SGD):
        pass

    net, mine = network(0), Mine([dw.Dense(2, 3)])
    with pytest.raises(TypeError, match="cannot be saved: only layers of dropwise"):
        mine.save(tmp_path / "a")
    for case, options, error in [
        (mine, {}, TypeError),
        (net, {"optimizer": Slow()}, TypeError),
        (net, {"checkpoint": io.BytesIO()}, TypeError),
        (net, {"checkpoint": tmp_path / "absent" / "a"}, FileNotFoundError),
        (net, {"checkpoint": tmp_path}, IsADirectoryError),
    ]:
        with pytest.raises(error):
            train(case, **({"checkpoint": tmp_path / "a"} | options))
        assert case.epochs_done == 0
    assert not list(tmp_path.iterdir())


def test_networks_that_are_nested_too_deep_to_load_are_not_saved(tmp_path):
    net = dw.Sequential([])
    for _ in range(48):
        net = dw.Sequential([net])
    net.save(tmp_path / "a")
    assert repr(dw.Sequential.load(tmp_path / "a")) == repr(net)
    with pytest.raises(ValueError, match="nested deeper than 50"):
        dw.Sequential([dw.Sequential([net])]).save(tmp_path / "b")


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    net = network(1)
    net.save(path)
    old = path.read_bytes()
    train(net)

    def fail(*_, **__):
        raise MemoryError

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(MemoryError):
                net.save(path)
    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(MemoryError):
            net.save(path)
        with pytest.raises(MemoryError):
            net.save(tmp_path / "new")
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_an_open_file_without_room_raises(room):
    with pytest.raises(OSError, match="No space left"):
        network(1).save(FullDisk(room))


@POSIX
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.npz"
    network(1).save(path)
    old = path.read_bytes()
    code = """
import resource
import dropwise as dw
net = dw.Sequential([dw.Dense(200, 200)], seed=0)
for limit in (0, 100, 4096, 100_000, 161_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for name in (PATH, PATH + ".new"):
        try:
            net.save(name)
        except OSError as error:
            assert error.errno == 27, error
        else:
            raise AssertionError(limit)
"""
    run_python(code.replace("PATH", repr(str(path))))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
def test_a_device_is_written_to_and_stays_one():
    with pytest.raises(OSError, match="No space left"):
        network(1).save("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    network(1).save(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.skipif(sys.platform != "linux", reason="forks; tried on Linux")
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    code = """
import os, random, signal, time
import dropwise as dw

path = PATH
nets = [dw.Sequential([dw.Dense(300, 300)], seed=i) for i in range(2)]
want = []
for net in nets:
    net.save(path)
    with open(path, "rb") as file:
        want.append(file.read())
random.seed(0)
seen, kills, deadline = set(), 0, time.monotonic() + 100
# Until kills have come before and after each of the renames, and within a save, which leaves its
# temporary file.  A busy machine needs longer waits.
while kills < 60 or seen != {0, 1} or len(os.listdir(os.path.dirname(path))) < 2:
    assert time.monotonic() < deadline, (kills, seen)
    child = os.fork()
    if not child:
        while True:
            for net in nets:
                net.save(path)
    time.sleep(random.uniform(0.0, 0.02 + 0.001 * kills))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    with open(path, "rb") as file:
        seen.add(want.index(file.read()))
    dw.Sequential.load(path)
print("done")
"""
    assert run_python(code.replace("PATH", repr(str(tmp_path / "a.npz")))) == "done\n"


@POSIX
def test_links_lead_to_the_file_and_permissions_stay(tmp_path):
    real, link, dangling = tmp_path / "real" / "a", tmp_path / "link", tmp_path / "dangling"
    real.parent.mkdir()
    net = network(1)
    net.save(real)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~umask
    link.symlink_to("real/a")
    dangling.symlink_to("real/b")
    for mode in (0o600, 0o664, 0o640):
        real.chmod(mode)
        net.epochs_done += 1
        net.save(link)
        assert link.is_symlink()
        assert stat.S_IMODE(real.stat().st_mode) == mode
        assert dw.Sequential.load(real).epochs_done == net.epochs_done
    net.save(dangling)
    assert dangling.is_symlink()
    assert sorted(p.name for p in real.parent.iterdir()) == ["a", "b"]


def test_a_training_can_be_saved_between_epochs(tmp_path):
    x, y = dw.datasets.spiral_data(60, 3, seed=0)
    whole, adam = network(1), dw.Adam(0.02)
    options = {"loss": dw.SoftmaxCrossEntropy(), "batch_size": 50}
    for epoch in whole.iter_fit(x, y, optimizer=adam, epochs=4, **options):
        whole.save(tmp_path / f"{epoch.epoch}", adam)
    again, optimizer = dw.load_checkpoint(tmp_path / "2")
    for epoch in again.iter_fit(x, y, optimizer=optimizer, epochs=2, **options):
        again.save(tmp_path / "again", optimizer)
        assert (tmp_path / "again").read_bytes() == (tmp_path / f"{epoch.epoch}").read_bytes()
