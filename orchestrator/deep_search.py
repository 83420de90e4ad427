"""Look for words in everything that was written: in files, and in what is packed inside of them.

Gzip, bzip2, xz and zstd streams, zip (and so npz), tar, Parquet, NumPy's strings, sqlite, text in
PNG, and base64 in pages are opened; a word is looked for as UTF-8, UTF-16 and UTF-32, and as URLs,
JSON and HTML write it.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import re
import sqlite3
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

DEEPEST, LARGEST = 6, 1 << 30
"""Containers inside of each other, and bytes of one that are opened at the most."""

_DATA_URI = re.compile(rb";base64,([A-Za-z0-9+/=\s]{16,})")


@dataclass(frozen=True)
class Hit:
    """A word that was found.

    Attributes:
        where: the file, and after `!` the way into it.
        word: as it was asked for.
    """

    where: str
    word: str


class Search:
    """Looks for words.

    Args:
        words: what to look for.
        in_base64: look for their base64 too, wherever in a longer text they stand.
        whole: only where no letter or digit is beside; for names that are part of other words.
    """

    def __init__(
        self, words: Iterable[str], *, in_base64: bool = False, whole: bool = False
    ) -> None:
        self._forms: list[tuple[str, re.Pattern[bytes]]] = []
        for word in words:
            for form in _forms(word, in_base64):
                pattern = re.escape(form)
                if whole:
                    pattern = rb"(?<![0-9A-Za-z])" + pattern + rb"(?![0-9A-Za-z])"
                self._forms.append((word, re.compile(pattern, re.IGNORECASE)))

    def path(self, path: Path, name: str | None = None) -> set[Hit]:
        """Return what a file holds, and its name; nothing for one that is gone."""
        shown = str(path) if name is None else name
        found = self.data(shown.encode(), f"name of {shown}", deep=False)
        try:
            return found | self.data(path.read_bytes(), shown)
        except OSError:
            return found

    def folder(self, folder: Path) -> set[Hit]:
        """Return what all files below a folder hold, their names and those of links."""
        found: set[Hit] = set()
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found |= self.data(str(path.readlink()).encode(), f"link {name}", deep=False)
            elif path.is_file():
                found |= self.path(path, name)
            else:
                found |= self.data(name.encode(), f"name of {name}", deep=False)
        return found

    def data(self, data: bytes, where: str, *, deep: bool = True) -> set[Hit]:
        """Return what some bytes hold."""
        parts = contents(data, where) if deep else [(where, data)]
        return {
            Hit(place, word)
            for place, part in parts
            for word, pattern in self._forms
            if pattern.search(part)
        }


def _forms(word: str, in_base64: bool) -> set[bytes]:
    texts = {word, quote(word), quote_plus(word), html.escape(word), json.dumps(word)[1:-1]}
    forms = {text.encode() for text in texts}
    forms |= {word.encode(code) for code in ("utf-16-le", "utf-16-be", "utf-32-le")}
    if in_base64:
        for before in range(3):
            raw = b"\0" * before + word.encode()
            coded = base64.b64encode(raw)
            # The first and last characters depend on what is beside the word.
            start, end = (0, 2, 3)[before], len(coded) - (0 if len(raw) % 3 == 0 else 4)
            forms |= {coded[start:end], base64.urlsafe_b64encode(raw)[start:end]}
    return {form for form in forms if form}


def contents(data: bytes, where: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield some bytes, and everything that is packed in them, each with the way to it."""
    yield where, data
    if depth >= DEEPEST or len(data) > LARGEST:
        return
    try:
        inner = list(_unpacked(data))
    except Exception:  # a torn container has been searched as it is; that is all that is left of it
        return
    for name, part in inner:
        yield from contents(part, f"{where}!{name}", depth + 1)


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(data)
    elif data[:3] == b"BZh":
        yield "bzip2", bz2.decompress(data)
    elif data[:6] == b"\xfd7zXZ\x00":
        yield "xz", lzma.decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        yield "zstd", _zstd(data)
    elif data[:4] == b"PAR1":
        yield from _parquet(data)
    elif data[:6] == b"\x93NUMPY":
        yield from _numpy(data)
    elif data[:16] == b"SQLite format 3\x00":
        yield from _sqlite(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png(data)
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield "names", "\n".join(archive.namelist()).encode()
            for member in archive.infolist():
                yield member.filename, archive.read(member)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                yield entry.name, entry.name.encode() + b"\n" + (file.read() if file else b"")
    else:
        for number, found in enumerate(_DATA_URI.finditer(data)):
            yield f"base64 {number}", base64.b64decode(found[1])


def _zstd(data: bytes) -> bytes:
    import pyarrow as pa

    with pa.input_stream(io.BytesIO(data), compression="zstd") as stream:
        return bytes(stream.read())


def _parquet(data: bytes) -> Iterator[tuple[str, bytes]]:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data), partitioning=None)
    yield "schema", str(table.schema).encode()
    for name in table.column_names:
        values = set(_leaves(table[name].to_pylist()))
        if values:
            yield name, b"\n".join(sorted(values))


def _leaves(value: object) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield value.encode()
    elif isinstance(value, dict):
        yield from _leaves([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)


def _numpy(data: bytes) -> Iterator[tuple[str, bytes]]:
    import numpy as np

    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind in "US":
        yield "strings", "\n".join(map(str, array.ravel())).encode()


def _sqlite(data: bytes) -> Iterator[tuple[str, bytes]]:
    # Its pages were searched already; a value that is spread over several is found here.
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        file.write(data)
        file.flush()
        base = sqlite3.connect(f"file:{file.name}?mode=ro&immutable=1", uri=True)
        try:
            tables = base.execute("select name from sqlite_master where type='table'").fetchall()
            for (table,) in tables:
                values = set(_leaves(base.execute(f'select * from "{table}"').fetchall()))
                yield table, b"\n".join(sorted(values))
        finally:
            base.close()


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        if kind in (b"zTXt", b"iTXt", b"eXIf"):
            start = body.find(b"\x78")
            yield kind.decode(), body
            while 0 <= start < len(body):
                try:
                    yield f"{kind.decode()} text", zlib.decompress(body[start:])
                    break
                except zlib.error:
                    start = body.find(b"\x78", start + 1)
        at += 12 + size
