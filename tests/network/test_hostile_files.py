"""Files that are damaged, foreign or malicious: one ValueError, no memory for what is not there."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest

import dropwise as dw
from dropwise.network import archive, files
from networks import network, train

PEAK = 3 << 20  # bytes that reading a small file may take at most; it reads 1 MiB at a time


def good_file():
    """The bytes of a file with everything in it: a training that goes on."""
    layers = [dw.Sequential([dw.Dense(2, 4), dw.Tanh()]), *network()[2:3], dw.Dense(4, 3)]
    net, adam = dw.Sequential(layers, seed=1), dw.Adam(0.02)
    x, y = dw.datasets.spiral_data(10, 3, seed=0)
    net.notes = {"a": [1, None, "b"]}
    train(net, 2, optimizer=adam, validation_data=(x, y))
    file = io.BytesIO()
    best = files.Best(0.5, 1, [p.copy() for p, _ in net.parameters()])
    files.save(net, file, adam, best)
    return file.getvalue()


GOOD = good_file()
HEADER, ARRAYS = archive.read(io.BytesIO(GOOD))


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0))
    return file.getvalue()


def npy_header(text, data=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def zip_of(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names given twice
        for name, data in entries:
            out.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def rewritten(header=None, arrays=None, text=None):
    """The good file with another header, or other arrays."""
    text = json.dumps(HEADER if header is None else header) if text is None else text
    entries = [("dropwise.npy", npy(np.array(text)))]
    entries += [(f"{n}.npy", npy(a)) for n, a in (ARRAYS if arrays is None else arrays).items()]
    return zip_of(entries)


def with_header(**changes):
    return rewritten(header=HEADER | changes)


def with_array(name, array):
    return rewritten(arrays=ARRAYS | {name: array})


def with_entry(name, data):
    """The good file with another first array, given by the bytes of its entry."""
    arrays = [(f"{n}.npy", npy(a)) for n, a in ARRAYS.items() if n != name]
    header = ("dropwise.npy", npy(np.array(json.dumps(HEADER))))
    return zip_of([header, (f"{name}.npy", data), *arrays])


def with_bias(data):
    return with_entry("network.2.bias", data)


def with_bias_array(array):
    return with_array("network.2.bias", array)


def refusal(data):
    """What loading says of these bytes; None if it accepts them.  Takes little memory."""
    tracemalloc.start()
    try:
        net, _ = dw.load_checkpoint(io.BytesIO(data))
    except ValueError as error:
        message = str(error)
        assert message.startswith("'BytesIO' ")
        assert len(message) < 1000
        assert "allow_pickle" not in message
        return message
    else:
        net.save(io.BytesIO())  # what is accepted is whole
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < PEAK + 20 * len(data), f"{peak} bytes for a file of {len(data)}"


def test_the_good_file_is_good():
    assert refusal(GOOD) is None
    assert refusal(rewritten()) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"some text\n" * 100, id="text"),
        pytest.param(b"{}", id="JSON"),
        pytest.param(npy(np.ones(100)), id="npy"),
        pytest.param(pickle.dumps({"a": np.ones(9)}), id="pickle"),
        pytest.param(zip_of([("a.npy", npy(np.ones(3)))]), id="another npz"),
        pytest.param(zip_of([("word/document.xml", b"<xml/>")]), id="another zip"),
        pytest.param(zip_of([]), id="an empty zip"),
        pytest.param(GOOD[:-1], id="cut"),
        pytest.param(GOOD[: len(GOOD) // 2], id="half"),
        pytest.param(bytes(1 << 20), id="zeros"),
    ],
)
def test_a_file_that_is_no_network_is_called_so(data):
    assert "is not a dropwise file" in refusal(data)


DEEP_LAYER = {"class": "Sequential", "layers": []}
for _ in range(60):
    DEEP_LAYER = {"class": "Sequential", "layers": [DEEP_LAYER]}
HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
OBJECT, VOID = (HUGE.replace("<f4", code) % "1," for code in ("|O", "|V9"))
ADAM = HEADER["optimizer"]["config"]
NESTED = HEADER["network"]["layers"]


def layers(**changes):
    """The good network with something changed in its last layer."""
    return with_header(network={"layers": [*NESTED[:-1], NESTED[-1] | changes]})


def state(changes):
    return with_header(state=HEADER["state"] | changes)


def optimizer(**changes):
    return with_header(optimizer=HEADER["optimizer"] | changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # what the archive itself is
        (zip_of([("dropwise.npy", npy(np.array("{}")))] * 2), "unexpected entry 'dropwise.npy'"),
        (zip_of([("dropwise.npy", npy(np.array("{}")))], zipfile.ZIP_DEFLATED), "is compressed"),
        (zip_of([("dropwise", b"")]), "unexpected entry 'dropwise'"),
        (zip_of([("dropwise.npy", pickle.dumps(1))]), "'dropwise': it is not an array in NumPy's"),
        (zip_of([("dropwise.npy", npy_header(HUGE % ""))]), "float32 is not expected here"),
        (rewritten(text="[" * 100_000), "entry 'dropwise': "),
        (rewritten(text='{"a":' * 100_000), "entry 'dropwise': "),
        (rewritten(text="[]"), "must be a JSON object"),
        (rewritten(text='{"format": 2, "format": 2}'), "a name twice"),
        (rewritten(text='{"format": NaN}'), "NaN is not JSON"),
        (rewritten(text="not JSON"), "entry 'dropwise': Expecting value"),
        # arrays that claim what is not there
        (with_bias(npy_header(HUGE % "9895604649984,")), "does not fit the 0"),
        (with_bias(npy_header(HUGE % "0, 9895604649984000000, ")), "not as NumPy"),
        (with_bias(npy_header(HUGE % "-1,")), "not as NumPy writes it"),
        (with_bias(npy_header(HUGE % ("1," * 70), bytes(4))), "network.2.bias"),
        (with_bias(npy_header("-" * 9000 + "1")), "not as NumPy writes it"),
        (with_bias(npy_header("(" * 60000)), "not as NumPy writes it"),
        (with_bias(b"\x93NUMPY\x01\x00"), "'network.2.bias': it is not an array"),
        (with_bias(b"\x93NUMPY\x03\x00" + bytes(200)), "version 1.0"),
        (with_bias(npy_header(OBJECT, bytes(8))), "not as NumPy writes it"),
        (with_bias(npy_header(VOID, bytes(9))), "is not expected"),
        (with_bias_array(np.zeros(3, complex)), "complex128 is not expected here"),
        (with_bias_array(np.zeros(3, "U3")), "<U3 is not expected here"),
        (with_bias_array(np.zeros(3, np.int64)), "int64 is not expected here"),
        # arrays of other shapes and dtypes, missing, and in excess
        (with_bias_array(np.zeros(3)), "bias must be float32 of shape (3,), got"),
        (with_bias_array(np.zeros(0, "f4")), "of shape (3,), got float32 of shape (0,)"),
        (with_array("network.2.weight", np.zeros((3, 4), "f4")), "got float32 of shape (3, 4)"),
        (with_array("optimizer.mean.0", np.zeros(3, "f4")), "mean.0 must be float32 of shape"),
        (with_array("best.loss", np.zeros(1)), "best.loss must be float64 of shape ()"),
        (with_array("best.1", np.zeros(15, "f8")), "best.1 must be float32 of shape (15,)"),
        (with_array("history.epoch", np.array([1.0, np.inf])), "whole numbers from 1"),
        (with_array("history.epoch", np.array([1.0, 2.5])), "whole numbers from 1"),
        (with_array("history.loss", np.zeros(3)), "loss must be float64 of shape (2,)"),
        (with_array("history.val_loss.known", np.zeros(2)), "known must be bool of shape (2,)"),
        (with_array("network.0.1.weight", np.zeros(2)), "unexpected: '0.1.weight'"),
        (with_array("network.9.weight", np.zeros(2)), "unexpected: '9.weight'"),
        (with_array("elsewhere", np.zeros(2)), "unexpected arrays: 'elsewhere'"),
        (rewritten(arrays={}), "no network.0.0.weight"),
        # what the header says
        (with_header(format=3), "it has format 3; this release reads formats 1 to 2: a newer"),
        (with_header(format="2"), "it has format '2'"),
        (with_header(format=True), "it has format True"),
        (with_header(format=1), "unexpected: 'best', 'dropwise', 'notes', 'optimizer'"),
        (rewritten(header={}), "it has format None"),
        (with_header(more=1), "the header does not fit: unexpected: 'more'"),
        (with_header(network=[]), "network must be a JSON object, got list"),
        (with_header(network={"layers": 3}), "the layers of the network must be a list"),
        (with_header(network={"layers": [3]}), "layer 0 must be a JSON object, got int"),
        (with_header(network={"layers": [{}]}), "the class of layer 0 must be a string, got None"),
        (with_header(network={"layers": [{"class": "Layer"}]}), "layer 0 is an unknown 'Layer'"),
        (with_header(network={"layers": [DEEP_LAYER]}), "nested deeper than 50 times"),
        (layers(out_features=10**12), "weight must be float32 of shape (4, 1000000000000)"),
        (layers(in_features=-4), "of shape (-4, 3)"),
        (layers(in_features=4.5), "of shape (4.5, 3)"),
        (layers(out_features=None), "of shape (4, None)"),
        (layers(dtype="O"), "dtype must be one of float16, float32, float64, bfloat16"),
        (layers(dtype=["f4"]), "dtype must be a string"),
        (layers(l2=-1), "layer 2: l2 must be finite and at least 0, got -1"),
        (layers(init="x" * 5000), "layer 2: init must be a standard deviation"),
        (layers(seed=1), "layer 2 must not have a seed"),
        (layers(layers=[]), "layer 2: "),
        (with_header(state={}), "missing: '0.epochs_done'"),
        (state({"0.0.weight": 1}), "values and arrays of the same"),
        (state({"epochs_done": -1}), "epochs_done must be at least 0"),
        (state({"epochs_done": 10**400}), "below 2**53"),
        (state({"1.next_stream": 2**57}), "layer 1: "),
        (state({"1.mask_contract": 2}), "mask contract version 2"),
        (state({"1.key": 5}), "key must be a string"),
        (with_header(notes=[]), "notes must be a JSON object"),
        (with_header(best={"epoch": 1}), "best does not fit: missing: 'arrays'"),
        (with_header(best={"epoch": 1, "arrays": 10**9}), "1000000000 best parameters for 2"),
        (optimizer(**{"class": "Lion"}), "unknown optimizer 'Lion'"),
        (optimizer(**{"class": "SGD"}), "optimizer does not fit: missing: 'momentum', 'nesterov'"),
        (optimizer(config={}), "missing: 'beta_1', 'beta_2'"),
        (optimizer(config=ADAM | {"beta_1": 1}), "beta_1 must be in [0, 1)"),
        (optimizer(state={}), "missing: class, iterations"),
        (optimizer(state=HEADER["optimizer"]["state"] | {"iterations": 10**99}), "below 2**53"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(data, message):
    text = refusal(data)
    assert text is not None
    assert message in text


def test_json_that_overflows_is_refused():
    text = json.dumps(HEADER).replace('"learning_rate": 0.02', '"learning_rate": 1e999')
    assert "learning_rate must be finite" in refusal(rewritten(text=text))


def test_a_directory_that_claims_what_is_not_there_is_refused():
    # Both sizes of the first entry, in the central directory.
    at = GOOD.index(b"PK\x01\x02")
    for size in (2**31, 2**32 - 2):
        data = bytearray(GOOD)
        data[at + 20 : at + 28] = struct.pack("<II", size, size)
        assert "claims more bytes than there are" in refusal(bytes(data))


def test_entries_cannot_share_their_bytes():
    data = bytearray(GOOD)
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # where the entry begins
    # Which of the two is found first, and how, depends on the Python.
    second_or_first = "'network.0.0.weight': File name in directory|'dropwise': Overlapped entries"
    assert re.search(f"entry ({second_or_first})", refusal(bytes(data)))


def test_an_array_whose_bytes_were_changed_is_refused():
    at = GOOD.index(npy(ARRAYS["network.2.weight"])) + 128 + 5
    data = bytearray(GOOD)
    data[at] ^= 1
    assert "entry 'network.2.weight': Bad CRC-32" in refusal(bytes(data))


def same_state(data):
    net, adam = dw.load_checkpoint(io.BytesIO(data))
    file = io.BytesIO()
    files.save(net, file, adam, net.unfinished)
    return file.getvalue() == GOOD


def test_no_damage_to_bytes_goes_unnoticed():
    rng = np.random.default_rng(0)
    accepted = 0
    for i in range(900):
        data = bytearray(GOOD)
        at = int(rng.integers(len(data)))
        run = int(rng.integers(1, 40))
        if i % 3 == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif i % 3 == 1:
            del data[at : at + run]
        else:
            data[at:at] = rng.bytes(run)
        if refusal(bytes(data)) is None:  # in a date, say
            accepted += 1
            assert same_state(bytes(data))
    assert accepted < 200


WRONG = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, "", "0x1f",
    "Dense", "bfloat16", "\ud800", "x" * 3000, [], [[]], {}, {"class": "Dense"}, [1, None],
    {"layers": []},
]  # fmt: skip


def places_in(value, path=()):
    """The paths to all values within a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places_in(inner, (*path, key))


def test_no_change_of_the_header_goes_wrong():
    rng = np.random.default_rng(1)
    places = list(places_in(HEADER))
    refused = 0
    for i in range(900):
        header = json.loads(json.dumps(HEADER))
        *path, last = places[i % len(places)]
        inner = header
        for key in path:
            inner = inner[key]
        change = rng.integers(6)
        if change == 0:
            del inner[last]
        elif change == 1 and isinstance(inner, dict):
            inner[str(WRONG[rng.integers(len(WRONG))])] = inner.pop(last)
        else:
            inner[last] = WRONG[rng.integers(len(WRONG))]
        refused += refusal(rewritten(header)) is not None
    assert refused > 600


def changed(array, rng):
    """The array in another shape or dtype, or with other values."""
    change = rng.integers(6)
    if change == 0:
        return array.astype(rng.choice(["f2", "f4", "f8", "?", "i4", "c8", "U4", ">f4"]))
    if change == 1:
        return array[None] if rng.integers(2) else array.reshape(-1)
    if change == 2:
        return np.repeat(array.reshape(-1), 2)
    if change == 3:
        return array.reshape(-1)[:-1]
    if change == 4:
        return np.full_like(array, rng.choice([np.nan, np.inf, -1.0, 1e300]))
    return array.T.copy(order="F")


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_no_change_of_the_arrays_goes_wrong():
    rng = np.random.default_rng(2)
    names = list(ARRAYS)
    refused = 0
    for i in range(600):
        name = names[i % len(names)]
        arrays = dict(ARRAYS)
        change = rng.integers(5)
        if change == 0:
            del arrays[name]
        elif change == 1:
            arrays[names[rng.integers(len(names))]] = arrays.pop(name)
        else:
            arrays[name] = changed(arrays[name], rng)
        refused += refusal(rewritten(arrays=arrays)) is not None
    assert refused > 400


def test_checksums_cannot_be_left_out():
    # A reader that stops at the last element never compares the sum.
    data = bytearray(GOOD)
    body = npy(ARRAYS["network.2.bias"])
    sums = struct.pack("<I", zlib.crc32(body))
    at = data.rindex(sums)
    data[at : at + 4] = bytes(4)
    assert "Bad CRC-32" in refusal(bytes(data))
