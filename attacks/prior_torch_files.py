"""Tensors out of other people's weight files: pickles, and both formats of `torch.save`."""

from __future__ import annotations

import math
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from attacks.prior_pickle import PickleReader, Storage, TensorView
from tasks.errors import DataError, MissingDataError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The first two pickles of a file that `torch.save` wrote before there were zips (torch 1.6)."""


def read_weights(path: Path) -> Any:
    """Return what a .pkl or a .pt holds, as inert data; `tensor` makes its tensors.

    Raises:
        MissingDataError: there is no such file.
        UnsafePickleError: it asks for something that weights do not need.
        DataError: it is damaged, or something else.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; name a .pkl or a .pt file of weights")
    reader = PickleReader(str(path), lambda data: _stored(path, data))
    try:
        if zipfile.is_zipfile(path) and _starts_like_zip(path):
            return _read_zip(path, reader)
        with path.open("rb") as stream:
            first = reader.read(stream)
            if first != MAGIC:
                return first
            return _read_old(path, stream, reader)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def tensor(view: Any, name: str) -> Tensor:
    """Return a float32 tensor of its description.

    Raises:
        DataError: it is no tensor, or reaches beyond its storage.
    """
    if not isinstance(view, TensorView):
        raise DataError(f"{name} is no tensor; the file is damaged, or of another program")
    storage = view.storage
    dtype: torch.dtype = getattr(torch, storage.dtype)
    last = view.offset + sum((n - 1) * s for n, s in zip(view.size, view.stride, strict=True))
    elements = math.prod(view.size)
    data = storage.data
    if (
        data is None
        or len(data) != storage.count * dtype.itemsize
        or elements > storage.count  # a stride of 0 would make any size out of one number
        or (elements and last >= storage.count)
    ):
        raise DataError(f"{name} reaches beyond the numbers that are stored; the file is damaged")
    if not elements:
        return torch.empty(view.size)
    numbers = torch.frombuffer(bytearray(data), dtype=dtype)
    return numbers.as_strided(view.size, view.stride, view.offset).to(torch.float32).contiguous()


def _starts_like_zip(path: Path) -> bool:
    """Say whether a file begins as a zip does: a pickle could have one at its end."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _read_zip(path: Path, reader: PickleReader) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise DataError(f"{path} is a zip, but not one that torch.save wrote")
        (root,) = roots
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise DataError(f"{path} was written on a big-endian machine, which is not supported")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise DataError(f"{path} is compressed, as torch.save never writes it")
        tree = reader.read(BytesIO(archive.read(f"{root}data.pkl")))
        for storage in reader.storages.values():
            if f"{root}data/{storage.key}" not in names:
                raise DataError(f"{path} lacks the numbers {storage.key!r}; it is damaged")
            storage.data = archive.read(f"{root}data/{storage.key}")
    return tree


def _read_old(path: Path, stream: IO[bytes], reader: PickleReader) -> Any:
    """Read what follows the magic number: protocol, system, object, keys, then the numbers."""
    protocol, system = reader.read(stream), reader.read(stream)
    if protocol != PROTOCOL or not isinstance(system, dict) or not system.get("little_endian"):
        raise DataError(f"{path} has a format of torch.save that is not known")
    tree, keys = reader.read(stream), reader.read(stream)
    for key in keys if isinstance(keys, list) else []:
        count = int.from_bytes(stream.read(8), "little")
        storage = reader.storages.get(str(key))
        if storage is None or storage.count != count:
            raise DataError(f"{path} lists numbers that nothing in it uses; it is damaged")
        storage.data = stream.read(count * getattr(torch, storage.dtype).itemsize)
    return tree


def _stored(path: Path, data: Any) -> Storage:
    """Return one storage that was pickled by itself: a whole old file as bytes."""
    if not isinstance(data, bytes):
        raise ValueError("a storage that is no bytes")
    stream = BytesIO(data)
    reader = PickleReader(str(path), _refuse_nesting)
    if reader.read(stream) != MAGIC:
        raise ValueError("a storage in a format that is not known")
    storage = _read_old(path, stream, reader)
    if not isinstance(storage, Storage):
        raise ValueError("a storage that is none")
    return storage


def _refuse_nesting(data: bytes) -> Storage:
    raise ValueError("a storage inside a storage")
