"""The first stage: which rows there are, who is protected, and by whom.

Decided on metadata, and on what pictures say where the policy asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clusters.embedded import embedded_ray
from orchestrator.images_stage import Progress, images_key, images_of
from orchestrator.provenance import note_people
from orchestrator.receipt import refuse_forgotten
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage, write_atomic
from tasks.datasets.spec import BuiltinData
from tasks.spec import fingerprint
from tasks.types import TargetClass

if TYPE_CHECKING:
    from augment.embeddings import Embedding


@dataclass(frozen=True)
class Selection:
    """Who is protected by whom, decided on metadata alone.

    Attributes:
        rows: the row table of all splits.
        targets: the classes under protection.
        num_classes: private classes.
    """

    rows: pa.Table
    targets: tuple[TargetClass, ...]
    num_classes: int

    def split(self, *names: str) -> pa.Table:
        """Return the rows of some splits; of the surrogate pool only the chosen identities."""
        splits = self.rows["split"].to_numpy(zero_copy_only=False)
        mask = np.isin(splits, names)
        lent = np.isin(splits, ("surrogate", "held-out"))
        if (lent & mask).any():
            identities = self.rows["identity"].to_numpy(zero_copy_only=False)
            chosen = [who.identity for target in self.targets for who in target.lenders]
            mask &= ~lent | np.isin(identities, chosen)
        return self.rows.filter(pa.array(mask))


def list_rows(spec: ExperimentSpec) -> pa.Table:
    """Return the row table of the experiment's data, no pixels read."""
    if isinstance(spec.data, BuiltinData):
        from tasks.datasets.builtin import builtin_rows

        return builtin_rows(spec.data, spec.seed)
    from tasks.datasets.folder import choose_rows, list_folder, list_public

    data = spec.data
    listing = _kept_listing(spec, "data", data.root, lambda: list_folder(data))
    others = None
    if (source := data.public_from) is not None:
        others = _kept_listing(spec, "public", source.root, lambda: list_public(source))
    return choose_rows(data, spec.seed, listing, others)


def _kept_listing(
    spec: ExperimentSpec, name: str, root: str, make_listing: Callable[[], pa.Table]
) -> pa.Table:
    """List a data set once: the listing is kept until the folder's or the archive's stamp changes.

    Nothing tells cheaply that an object store has changed: there it is kept until it is deleted.
    """
    import pyarrow.parquet as pq

    from tasks.datasets.places import open_place

    data = spec.data
    assert not isinstance(data, BuiltinData)
    wanted = data.model_dump(mode="json", include={"layout", "root", "crop", "public_from"})
    named = [data.private, data.surrogates, data.public] if data.layout == "imagefolder" else []
    key = fingerprint([name, wanted, named, open_place(root).stamp()])
    store = Store(spec.storage)
    folder = store.artifact("listing", key)

    def make(out: Path) -> dict[str, object]:
        table = make_listing()
        # Before anything of them is written: what was removed must not come back unnoticed.
        refuse_forgotten(store.receipts(), store.key, table["identity"].unique().to_pylist())
        write_atomic(out / "listing.parquet", _parquet(table))
        return {"rows": table.num_rows}

    stage(folder, make)
    return pq.read_table(folder / "listing.parquet", partitioning=None)


def _parquet(table: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def pooled_rows(spec: ExperimentSpec) -> pa.Table:
    """Return the row table with the pool that the experiment asks for, less what is held back."""
    from augment.pool import hold_back

    rows, share = _with_pool(spec), spec.protect.surrogate_held_out
    return hold_back(rows, share, spec.seed) if share else rows


def _with_pool(spec: ExperimentSpec) -> pa.Table:
    rows, protect = list_rows(spec), spec.protect
    if protect.surrogate_pool == "held-out":
        from augment.pool import hold_out

        named = () if isinstance(protect.targets, int) else protect.targets
        return hold_out(rows, protect.pool_identities, named, spec.seed)
    if protect.surrogate_pool == "builtin" and not isinstance(spec.data, BuiltinData):
        from augment.pool import with_pool
        from tasks.datasets.builtin import surrogate_rows

        pool = surrogate_rows(protect.pool_identities, protect.pool_images, spec.seed)
        return with_pool(rows, pool)
    return rows


def select(
    spec: ExperimentSpec,
    typicality: Mapping[str, float] | None = None,
    embedding: Embedding | None = None,
) -> Selection:
    """Choose targets and surrogates on metadata, and on what pictures say where that is known.

    Where the policy asks for pictures and nobody has looked yet, who is protected is final, and by
    whom is not: `choose` decides.
    """
    from augment.assignment import Seats
    from augment.embeddings import read_embedding
    from augment.surrogate import assign_surrogates, choose_targets
    from augment.surrogate_list import read_surrogate_list

    protect = spec.protect
    rows = pooled_rows(spec)
    num_classes = int(rows["label"].to_numpy().max()) + 1
    names = choose_targets(rows, protect.targets, spec.seed)
    policy: Any = protect.surrogates
    if policy == "listed":
        assert protect.surrogate_list is not None
        policy = read_surrogate_list(protect.surrogate_list)
    elif policy == "embedding-distant" and isinstance(protect.embedding, Path):
        embedding = read_embedding(protect.embedding)
    elif policy == "embedding-distant" and embedding is None:
        policy = "attribute-opposite"
    targets = assign_surrogates(
        rows,
        names,
        policy,
        num_classes,
        spec.seed,
        typicality,
        seats=Seats(
            protect.surrogates_per_target + protect.decoys, protect.max_targets_per_surrogate
        ),
        decoys=protect.decoys,
        opposite=protect.opposite,
        embedding=embedding,
    )
    return Selection(rows, tuple(targets), num_classes)


PUBLIC_SAMPLE, POOL_SAMPLE = 4000, 6
"""Pictures looked at: of the public, and of each identity of the pool (or target)."""


def choose(spec: ExperimentSpec, store: Store, progress: Progress) -> Selection:
    """Choose targets and surrogates, looking at pictures where the policy asks for it.

    What was seen is kept; where it is not there yet, Ray reads the pictures.
    """
    selection = select(spec)
    policy = spec.protect.surrogates
    pixels = policy == "embedding-distant" and spec.protect.embedding == "pixels"
    if not (policy == "typical-opposite" or pixels) or not selection.targets:
        return selection
    from augment.embeddings import read_embedding, write_embedding
    from augment.typicality import pixel_embedding, typicality

    seen = {target.identity for target in selection.targets} if pixels else set()
    rows = _sample(selection.rows, seen)
    key = images_key(spec, rows)

    def make(out: Path) -> dict[str, object]:
        with embedded_ray(spec.compute.cpus):
            table, images, _ = images_of(spec, store, rows, "sampled", progress)
        note_people(out, store, table)
        public = table["split"].to_numpy(zero_copy_only=False) == "public"
        names = table["identity"].to_numpy(zero_copy_only=False)
        views = (images[public], images[~public], names[~public].tolist())
        if pixels:
            write_embedding(pixel_embedding(*views), out / "embedding.parquet")
            return {"identities": len(set(views[2]))}
        return {"typicality": typicality(*views)}

    folder = store.artifact("pixels" if pixels else "typicality", key)
    made = stage(folder, make)
    if pixels:
        return select(spec, embedding=read_embedding(folder / "embedding.parquet"))
    return select(spec, made["typicality"])


def _sample(rows: pa.Table, targets: Collection[str]) -> pa.Table:
    """Return keyed draws of the public's rows, and of each identity's of the pool and targets."""
    from tasks.draws import Draws

    splits = rows["split"].to_numpy(zero_copy_only=False)
    identities = rows["identity"].to_numpy(zero_copy_only=False)
    rank = Draws(0, ("typicality",)).bits(rows["row_id"].to_numpy())[:, 0]
    order = np.argsort(rank, kind="stable")
    public = order[splits[order] == "public"][:PUBLIC_SAMPLE]
    shown = (splits == "surrogate") | ((splits == "train") & np.isin(identities, list(targets)))
    seen: dict[str, int] = {}
    sample = []
    for row in order[shown[order]]:
        seen[identities[row]] = seen.get(identities[row], 0) + 1
        if seen[identities[row]] <= POOL_SAMPLE:
            sample.append(row)
    return rows.take(pa.array(np.sort([*public, *sample])))
