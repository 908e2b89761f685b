"""One file of plain text and arrays: an uncompressed ``.npz`` that is read without trust.

What the entries mean is the business of `files`.  Writing replaces a file in one step, so that a
full disk or a kill leaves the old file or the new one.  Reading believes nothing that the file says
of itself: every size is checked against the bytes that are there, and no pickle is ever loaded.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, TypeAlias

import numpy as np

from dropwise._backends.protocol import Array

File: TypeAlias = "str | os.PathLike[str] | IO[bytes]"

HEADER = "dropwise"  # the entry with the JSON text
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes
_KINDS = "biuf"  # of arrays; the header alone is a string
_MAX_NPY_HEADER = 10_000
_READ_AT_ONCE = 1 << 20  # bytes


def name_of(file: File) -> str:
    """How messages call the file."""
    if isinstance(file, (str, os.PathLike)):
        return repr(os.fspath(file))
    return repr(getattr(file, "name", type(file).__name__))


# ---- writing -----------------------------------------------------------------------------------


def write(file: File, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write `header` (JSON-safe) and `arrays` to a path, or to a binary file that is open.

    A path gets a temporary file beside it, which is flushed to the disk and then takes its name.
    """
    text = json.dumps(header, allow_nan=False)
    if isinstance(file, (str, os.PathLike)):
        with _replacing(os.path.realpath(file)) as target:
            _write(target, text, arrays)
    else:
        _write(file, text, arrays)


def _write(target: IO[bytes], text: str, arrays: Mapping[str, Array]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {HEADER: np.array(text), **arrays}.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends well, and is gone when it does not."""
    mode = None
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a device or a pipe cannot be replaced
            with open(path, "wb") as target:
                yield target
            return
        mode = stat.S_IMODE(status.st_mode)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    with open(temporary, "xb") as target:
        try:
            yield target
            target.flush()
            if mode is not None:
                os.chmod(temporary, mode)
            os.fsync(target.fileno())
        except BaseException:
            target.close()
            os.unlink(temporary)
            raise
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _flush_folder(folder)


def _flush_folder(folder: str) -> None:
    """Make a new name in the folder survive a power failure, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---- reading -----------------------------------------------------------------------------------


def read(file: File) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a file that `write` wrote.

    Raises
    ------
    ValueError
        If the file is anything else, or damaged: it says what is wrong and in which entry.  No more
        memory is taken than the file has bytes.
    OSError
        If a path cannot be opened.
    """
    if not isinstance(file, (str, os.PathLike)):
        return _read(file, name_of(file))
    with open(file, "rb") as stream:
        return _read(stream, name_of(file))


def _read(stream: IO[bytes], name: str) -> tuple[dict[str, Any], dict[str, Array]]:
    where = "the list of entries"
    try:
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        with zipfile.ZipFile(stream) as archive:
            entries = _checked_entries(archive, size)
            if HEADER not in entries:
                raise ValueError(f"there is no entry {HEADER!r}")
            where = f"entry {HEADER!r}"
            header = _parse_header(_array(archive, entries.pop(HEADER), "U"))
            arrays = {}
            for key, entry in entries.items():
                where = f"entry {key!r}"
                arrays[key] = _array(archive, entry, _KINDS)
        return header, arrays
    except MemoryError:
        raise
    except zipfile.BadZipFile as error:
        raise ValueError(f"{name} is not a dropwise file, or is damaged: {error}") from None
    except Exception as error:  # whatever zipfile, struct and json make of hostile bytes
        reason = str(error) or type(error).__name__
        raise ValueError(f"{name} is not a dropwise file: {where}: {reason}") from error


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
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"arrays of format {version} are not read")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(
            stream, max_header_size=_MAX_NPY_HEADER
        )
        if dtype.kind not in kinds or dtype.hasobject:
            raise ValueError(f"dtype {dtype} is not expected here")
        data = bytearray(entry.file_size - stream.tell())
        view = memoryview(data)
        filled = 0
        while part := stream.read(_READ_AT_ONCE):  # to the end, which checks the sum
            view[filled : filled + len(part)] = part
            filled += len(part)
        if filled != len(data):
            raise ValueError("the entry does not end where it says")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"shape {shape} of {dtype} does not fit the {len(data)} bytes there are")
    array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    return array


def _parse_header(text: Array) -> dict[str, Any]:
    if text.ndim:
        raise ValueError("the header must be one string")
    header = json.loads(str(text), parse_constant=_refuse_constant)
    if not isinstance(header, dict):
        raise ValueError("the header must be a JSON object")
    return header


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
