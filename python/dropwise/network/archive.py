"""One file of plain text and arrays: an uncompressed ``.npz`` that is read without trust.

What the entries mean is the business of `files`.  Writing replaces a file in one step, so that a
full disk or a kill leaves the old file or the new one.  Reading believes nothing that the file says
of itself: every size is checked against the bytes that are there, and no pickle is ever loaded.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, Literal, TypeAlias, cast

import numpy as np

from dropwise._backends.protocol import Array

File: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

HEADER = "dropwise"  # the entry with the JSON text
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes
_KINDS = "bf"  # of arrays; the header alone is a string
_READ_AT_ONCE = 1 << 20  # bytes
_LONGEST_MESSAGE = 600  # characters of what a file is blamed for

# An array begins like every .npy file that NumPy writes in version 1.0.  NumPy's own parser would
# evaluate this text as Python, in which a few hundred bytes can exhaust the stack.
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    r"\{'descr': '([<>|][a-zA-Z][0-9]{1,9})', 'fortran_order': (True|False), "
    r"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\), \} *\n"
)


def name_of(file: File) -> str:
    """How messages call the file."""
    if isinstance(file, (str, os.PathLike)):
        return repr(os.fspath(file))
    return repr(getattr(file, "name", type(file).__name__))


def is_path(file: Any, method: str) -> bool:
    """Whether `file` is a path; raises unless that or a binary file with this method."""
    if isinstance(file, (str, os.PathLike)):
        if not isinstance(os.fspath(file), str):
            raise TypeError(f"the path must be a string, got {file!r}")
        return True
    if isinstance(file, io.TextIOBase) or not hasattr(file, method):
        raise TypeError(f"file must be a path or an open binary file, got {file!r}")
    return False


def bad_file(file: File, what: str, reason: str) -> ValueError:
    """The error of a file that is not `what`; hostile bytes cannot make it endless."""
    if len(reason) > _LONGEST_MESSAGE:
        reason = reason[:_LONGEST_MESSAGE] + " ..."
    return ValueError(f"{name_of(file)} {what}: {reason}")


# ---- writing -----------------------------------------------------------------------------------


def check_place(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """The place that a path leads to, and the mode of what is there; raises if none can be written.

    It is called before a training that ends with a file, too.
    """
    if not isinstance(path, (str, os.PathLike)) or not is_path(path, ""):
        raise TypeError(f"the file must be given by its path, got {path!r}")
    place = os.path.realpath(path)
    try:
        mode = os.stat(place).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place)
    if mode is not None and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
    if mode is None or stat.S_ISREG(mode):  # it will be replaced
        folder = os.path.dirname(place)
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    return place, mode


def write(file: File, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write `header` (JSON-safe) and `arrays` to a path, or to a binary file that is open.

    A path gets a temporary file beside it, which is flushed to the disk and then takes its name.
    """
    text = json.dumps(header, allow_nan=False)
    if not is_path(file, "write"):
        _write(cast("IO[bytes]", file), text, arrays)
        return
    place, mode = check_place(cast("str | os.PathLike[str]", file))
    if mode is None or stat.S_ISREG(mode):
        with _replacing(place, mode) as target:
            _write(target, text, arrays)
    else:  # a device or a pipe cannot be replaced
        with open(place, "wb") as target:
            _write(target, text, arrays)


def _write(target: IO[bytes], text: str, arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {HEADER: np.array(text), **arrays}.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)


@contextlib.contextmanager
def _replacing(path: str, mode: int | None) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends well, and is gone when it does not.

    `mode` is that of the file that is there, whose permissions are kept.
    """
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".dropwise-{secrets.token_hex(8)}.tmp")
    permissions = 0o666 if mode is None else stat.S_IMODE(mode)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, permissions & 0o666)

    target = open(temporary, "xb", opener=opener)  # noqa: SIM115  # closed before it is renamed
    try:
        try:
            yield target
            target.flush()
            if mode is not None:
                os.chmod(temporary, permissions)
            os.fsync(target.fileno())
        finally:
            target.close()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_folder(folder)


def _flush_folder(folder: str) -> None:
    """Make a new name in the folder survive a power failure, where the system can do that."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network file systems cannot, nor some users
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


# ---- reading -----------------------------------------------------------------------------------


def read(file: File) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a file that `write` wrote.

    Raises
    ------
    ValueError
        If the file is anything else, or damaged: it says what is wrong and in which entry.  Memory
        is taken for bytes that are there, not for what the file claims.
    OSError
        If a path cannot be opened.
    """
    if not is_path(file, "read"):
        return _read(cast("IO[bytes]", file), file)
    with open(cast("str | os.PathLike[str]", file), "rb") as stream:
        return _read(stream, file)


def _read(stream: IO[bytes], file: File) -> tuple[dict[str, Any], dict[str, Array]]:
    what, where = "is not a dropwise file, or is damaged", "the list of entries"
    try:
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        with zipfile.ZipFile(stream) as archive:
            entries = _checked_entries(archive, size)
            what = "is not a dropwise file"
            if HEADER not in entries:
                raise ValueError(f"there is no entry {HEADER!r}")
            what, where = "is damaged", f"entry {HEADER!r}"
            header = _parse_header(_array(archive, entries.pop(HEADER), "U"))
            arrays = {}
            for key, entry in entries.items():
                where = f"entry {key!r}"
                arrays[key] = _array(archive, entry, _KINDS)
        return header, arrays
    except MemoryError:
        raise
    except Exception as error:  # whatever zipfile, struct and json make of hostile bytes
        reason = str(error) or type(error).__name__
        raise bad_file(file, what, f"{where}: {reason}") from error


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, once they can all be held in the `size` bytes of the file."""
    entries: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for entry in archive.infolist():
        key = entry.filename.removesuffix(".npy")
        if key == entry.filename or key in entries:
            raise ValueError(f"unexpected entry {entry.filename!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"entry {key!r} is compressed or encrypted")
        total += entry.file_size
        if entry.file_size != entry.compress_size or total > size:
            raise ValueError(f"entry {key!r} claims more bytes than there are")
        entries[key] = entry
    return entries


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, kinds: str) -> Array:
    """The array of an entry, in its own memory."""
    with archive.open(entry) as stream:
        dtype, order, shape, start = _read_npy_header(stream)
        if dtype.kind not in kinds:
            raise ValueError(f"dtype {dtype} is not expected here")
        length = entry.file_size - start
        if math.prod(shape) * dtype.itemsize != length:
            raise ValueError(f"shape {shape} of {dtype} does not fit the {length} bytes there are")
        data = bytearray(length)
        view = memoryview(data)
        filled = 0
        while part := stream.read(_READ_AT_ONCE):  # to the end, which checks the sum
            view[filled : filled + len(part)] = part
            filled += len(part)
        if filled != length:
            raise ValueError("the entry does not end where it says")
    array: Array = np.ndarray(shape, dtype, data, order=order)
    return array


def _read_npy_header(
    stream: IO[bytes],
) -> tuple[np.dtype[Any], Literal["C", "F"], tuple[int, ...], int]:
    """Dtype, order and shape of an array, and how many bytes said so."""
    magic = stream.read(len(_NPY_MAGIC) + 2)
    if magic[:-2] != _NPY_MAGIC or len(magic) != len(_NPY_MAGIC) + 2:
        raise ValueError("it is not an array in NumPy's format, version 1.0")
    length = int.from_bytes(magic[-2:], "little")
    match = _NPY_HEADER.fullmatch(stream.read(length).decode("latin1"))
    if match is None:
        raise ValueError("the array's header is not as NumPy writes it")
    shape = tuple(int(n) for n in re.findall("[0-9]+", match[3]))
    order: Literal["C", "F"] = "F" if match[2] == "True" else "C"
    return np.dtype(match[1]), order, shape, len(magic) + length


def _parse_header(text: Array) -> dict[str, Any]:
    if text.ndim:
        raise ValueError("the header must be one string")
    header = parse_json(str(text))
    if not isinstance(header, dict):
        raise ValueError("the header must be a JSON object")
    return header


def parse_json(text: str) -> Any:
    """What a JSON text says, if it is strict JSON without a name given twice."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_names)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError(f"a JSON object has a name twice, of {', '.join(map(repr, names))}")
    return names
