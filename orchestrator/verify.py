"""`dcdctl plan --check`: is a written data set what its recipe says, sample by sample?

The chain starts at private/seal.json, which was written last. It holds the hashes of the recipe and
of the public manifest; the recipe holds the hash of each image, and its label; the manifest holds
the hash of each shard, which covers the bytes between the images. Where the recipe is whole, what
is wrong with a sample is said of that sample.

It finds damage and tampering with the public part. Whoever can write the private part can write
another seal: compare the fingerprint of the plan with the one in a trial's record or a report.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from rich.console import Console

from augment.recipes import PLAN_SCHEMA
from orchestrator.materialise import BEGUN, MANIFEST, RECIPE, SEAL, recipe_of
from orchestrator.plan_tally import plan_digest
from orchestrator.shards import SHARD_SCHEMA
from tasks.errors import AlteredDataError, MissingDataError, StoreError
from tasks.spec import Spec

SHOWN = 20  # faults printed for people; JSON has all

Kind = Literal[
    "image differs",
    "label differs",
    "missing sample",
    "unknown sample",
    "repeated sample",
    "missing file",
    "unknown file",
    "shard differs",
    "manifest differs",
    "recipe differs",
]


class Fault(Spec):
    """One thing that is not as it was written."""

    kind: Kind
    file: str = Field(description="Path in the folder.")
    sample_id: str | None = None
    role: str | None = Field(None, description="What the sample is: in JSON only, for the owner.")


class CheckOutcome(Spec):
    """What a check found."""

    data: str
    samples: int = Field(description="That the recipe has.")
    plan: str = Field(description="Fingerprint, as in `dcdctl augment` and in a trial's record.")
    shards: int
    faults: tuple[Fault, ...]

    def render(self, console: Console) -> None:
        """Print it for people; what role a sample has is not said."""
        if not self.faults:
            lines = [
                f"{self.samples:,} samples in {self.shards} shards are what the recipe says",
                f"plan {self.plan}",
            ]
        else:
            counts = Counter(fault.kind for fault in self.faults)
            lines = [", ".join(f"{kind}: {n:,}" for kind, n in counts.items())]
            lines += [
                f"  {fault.kind}: {_printable(fault.sample_id or fault.file)}"
                + (f" in {_printable(fault.file)}" if fault.sample_id else "")
                for fault in self.faults[:SHOWN]
            ]
            if len(self.faults) > SHOWN:
                lines.append(f"  and {len(self.faults) - SHOWN:,} more; --json has all")
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    def require_whole(self) -> None:
        """Fail where anything differs.

        Raises:
            AlteredDataError: with the number of faults.
        """
        if self.faults:
            raise AlteredDataError(
                f"{len(self.faults):,} thing{'s' * (len(self.faults) != 1)} in {self.data} "
                "differ from what was written; do not train on it, write it anew"
            )


def _printable(name: str) -> str:
    """Return a name that somebody else may have chosen, safe for a terminal."""
    return name.encode("unicode_escape").decode()


def verify(data: Path) -> CheckOutcome:
    """Compare a data set with its recipe; what is wrong is returned, not raised.

    Args:
        data: the folder that `materialise` wrote, with both its parts.

    Raises:
        MissingDataError: it is not there, or without its private part.
        StoreError: it was never finished, or its seal cannot be read.
    """
    private, public = data / "private", data / "public"
    if not (private / SEAL).is_file():
        if (private / BEGUN).is_file():
            raise StoreError(
                f"{data} is not finished, so there is nothing to check yet; run the same "
                "`dcdctl augment` again"
            )
        raise MissingDataError(
            f"{data} has no private/{SEAL}; name a folder that `dcdctl augment` wrote, with the "
            "private part that you kept in it"
        )
    try:
        seal = json.loads((private / SEAL).read_bytes())
        wanted = {key: seal[key] for key in ("samples", "plan", "recipe_sha256", "manifest_sha256")}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{private / SEAL} is damaged; without it nothing can be checked"
        ) from error

    faults: list[Fault] = []
    recipe = _recipe(private / RECIPE, wanted, faults)
    manifest = _manifest(public / MANIFEST, wanted, faults)
    shards = manifest.get("shards", [])
    if recipe is not None and manifest:
        faults += _Comparison.with_recipe(recipe, public, manifest).faults_of_all()
    return CheckOutcome(
        data=str(data),
        samples=wanted["samples"],
        plan=wanted["plan"],
        shards=len(shards),
        faults=tuple(faults),
    )


def _recipe(path: Path, seal: dict[str, Any], faults: list[Fault]) -> pa.Table | None:
    """Return the recipe as far as it can be used, and note where it is not the sealed one."""
    name = f"private/{path.name}"
    if not path.is_file():
        faults.append(Fault(kind="missing file", file=name))
        return None
    content = path.read_bytes()
    same = hashlib.sha256(content).hexdigest() == seal["recipe_sha256"]
    try:
        table = pq.read_table(io.BytesIO(content))
        same = same and plan_digest(recipe_of(table)) == seal["plan"]
        usable = {*PLAN_SCHEMA.names, "sample_id", "image_sha256"} <= set(table.column_names)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        table, same, usable = None, False, False
    if not same:
        faults.append(Fault(kind="recipe differs", file=name))
    return table if usable else None


def _manifest(path: Path, seal: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    """Return the manifest as far as it can be used, and note where it is not the sealed one."""
    name = f"public/{path.name}"
    if not path.is_file():
        faults.append(Fault(kind="missing file", file=name))
        return {}
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == seal["manifest_sha256"]:
        manifest: dict[str, Any] = json.loads(content)
        return manifest
    faults.append(Fault(kind="manifest differs", file=name))
    return {}


@dataclass
class _Comparison:
    """The recipe against what lies in the public part.

    Attributes:
        public: the folder.
        manifest: of the public part, already found to be the sealed one.
        expected: image hash, label and role of each sample.
        place: where each sample belongs: of a folder of images its file, else its shard.
        seen: samples found.
    """

    public: Path
    manifest: dict[str, Any]
    expected: dict[str, tuple[bytes, int, str]]
    place: dict[str, str]
    seen: set[str] = field(default_factory=set)

    @classmethod
    def with_recipe(cls, recipe: pa.Table, public: Path, manifest: dict[str, Any]) -> _Comparison:
        ids = recipe["sample_id"].to_pylist()
        columns = (recipe[name].to_pylist() for name in ("image_sha256", "label", "role"))
        expected = dict(zip(ids, zip(*columns, strict=True), strict=True))
        names = [shard["name"] for shard in manifest["shards"] for _ in range(shard["samples"])]
        return cls(public, manifest, expected, dict(zip(ids, names, strict=False)))

    def faults_of_all(self) -> list[Fault]:
        """Return everything that differs, files in the order of their names."""
        if self.manifest["format"] == "imagefolder":
            files = self._files()
            faults = [fault for path in files for fault in self._check_file(path)]
        else:
            read = _read_parquet if self.manifest["format"] == "parquet" else _read_tar
            faults = list(self._check_shards(read))
        missing = sorted(self.expected.keys() - self.seen)
        faults += [self._fault("missing sample", self.place.get(id_, ""), id_) for id_ in missing]
        return faults

    def _files(self) -> list[Path]:
        found = sorted(path for path in self.public.rglob("*") if not path.is_dir())
        return [path for path in found if path != self.public / MANIFEST]

    def _check_shards(self, read: Callable[[Path], Iterator[_Read]]) -> Iterator[Fault]:
        shards = {shard["name"]: shard for shard in self.manifest["shards"]}
        for path in self._files():
            if str(path.relative_to(self.public)) not in shards:
                yield self._fault("unknown file", self._name(path))
        for name, shard in shards.items():
            path = self.public / name
            if not path.is_file():
                yield self._fault("missing file", self._name(path))
                continue
            told = False
            try:
                for sample in read(path):
                    for fault in self._check(sample, self._name(path)):
                        told = True
                        yield fault
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, tarfile.TarError):
                pass  # the hash tells
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"] and not told:
                    yield self._fault("shard differs", self._name(path))

    def _check_file(self, path: Path) -> Iterator[Fault]:
        """Compare one image of a folder: the label is the name of its folder."""
        classes = self.manifest["classes"]
        folder = path.parent
        known = folder.parent == self.public and folder.name in classes
        if not known or path.stem not in self.expected:
            yield self._fault("unknown file", self._name(path))
            return
        sample = _Read(path.stem, classes.index(folder.name), path.read_bytes())
        yield from self._check(sample, self._name(path))

    def _check(self, sample: _Read, file: str) -> Iterator[Fault]:
        wanted = self.expected.get(sample.id)
        if wanted is None:
            yield self._fault("unknown sample", file, sample.id)
            return
        if sample.id in self.seen:
            yield self._fault("repeated sample", file, sample.id)
        self.seen.add(sample.id)
        if hashlib.sha256(sample.image).digest() != wanted[0]:
            yield self._fault("image differs", file, sample.id)
        if sample.label != wanted[1]:
            yield self._fault("label differs", file, sample.id)

    def _fault(self, kind: Kind, file: str, sample_id: str | None = None) -> Fault:
        known = self.expected.get(sample_id) if sample_id else None
        role = known[2] if known else None
        return Fault(kind=kind, file=file, sample_id=sample_id, role=role)

    def _name(self, path: Path) -> str:
        return f"public/{path.relative_to(self.public)}"


@dataclass(frozen=True)
class _Read:
    """A sample as it was found; a label that is no number is None."""

    id: str
    label: int | None
    image: Any


def _read_parquet(path: Path) -> Iterator[_Read]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=SHARD_SCHEMA.names[:3])
            columns = (table["sample_id"].to_pylist(), table["label"].to_pylist())
            for id_, label, image in zip(*columns, table["image"], strict=True):
                yield _Read(id_, label, image.as_buffer())


def _read_tar(path: Path) -> Iterator[_Read]:
    """Read pairs of an image and its .cls; what comes without its pair is a sample on its own."""
    with tarfile.open(path, "r:") as tar:
        waiting: tuple[str, bytes] | None = None
        for member in tar:
            key, _, ending = member.name.partition(".")
            content = tar.extractfile(member)
            data = content.read() if content is not None else b""
            if ending == "cls" and waiting is not None and waiting[0] == key:
                text = data.decode(errors="replace")
                yield _Read(key, int(text) if text.isdecimal() else None, waiting[1])
                waiting = None
                continue
            if waiting is not None:
                yield _Read(waiting[0], None, waiting[1])
            waiting = (key, data)
        if waiting is not None:
            yield _Read(waiting[0], None, waiting[1])
