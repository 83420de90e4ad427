"""The stages that every command shares: row table, surrogates, decoded images, prior.

Each stage's output is kept under a key of what went into it; a stage whose manifest is there is not
done again, in this run or in any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from clusters.embedded import embedded_ray
from orchestrator.provenance import note_people
from orchestrator.receipt import refuse_forgotten
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage, write_atomic
from orchestrator.trial import NeverLent, World
from tasks.datasets.spec import BuiltinData, FolderData
from tasks.errors import MissingDataError
from tasks.spec import fingerprint
from tasks.types import Image8, TargetClass

if TYPE_CHECKING:
    from attacks.prior import Prior
    from attacks.prior_files import AnyPrior
    from augment.embeddings import Embedding
    from tasks.evaluation.sampling import TargetSample

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


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


DRAWN_HELD_OUT = 10
"""Images of each drawn surrogate beside a folder that are never lent."""

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
    key = fingerprint([spec.data.model_dump(mode="json"), _listing(spec, rows)])

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


def images_of(
    spec: ExperimentSpec, store: Store, rows: pa.Table, name: str, progress: Progress
) -> tuple[pa.Table, Image8, str]:
    """Decode rows with Ray Data, once for these rows; return table, images and their key.

    The table has a column more: `native`, the packed size of each image in its file.
    """
    from orchestrator.ingest import ingest, load_images, load_sizes

    key = images_key(spec, rows)
    folder = store.artifact("images", f"{name}-{key}")

    def make(out: Path) -> dict[str, object]:
        refuse_forgotten(store.receipts(), store.key, rows["identity"].unique().to_pylist())
        result = ingest(
            rows,
            spec.data,
            spec.seed,
            out,
            on_progress=lambda done, total: progress(f"{name} images", done, total),
        )
        return {"rows": result.rows, "quarantined": result.quarantined}

    made = stage(folder, make)
    for reason, count in made["quarantined"].items():
        progress(f"set aside, {reason}", count, count)
    table, images = load_images(folder)
    return table.append_column("native", pa.array(load_sizes(folder))), images, key


def images_key(spec: ExperimentSpec, rows: pa.Table) -> str:
    """Return the key under which the decoded images of these rows are kept."""
    return fingerprint([spec.data.model_dump(mode="json"), _listing(spec, rows)])


def private_and_lent(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> list[tuple[pa.Table, Image8, str]]:
    """Return the private images and, with targets, the lent ones: table, mapped images, key."""
    parts = [images_of(spec, store, selection.split("train", "test"), "private", progress)]
    if selection.targets:
        parts.append(images_of(spec, store, selection.split("surrogate"), "lent", progress))
    return parts


def prepare_world(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> World:
    """Return what all trials share: the private data and the lent surrogate images, decoded."""
    from orchestrator.knowledge import prepare_knowledge

    tables, arrays, digests = zip(*private_and_lent(spec, store, selection, progress), strict=True)
    public_key = f"{spec.seed}" if isinstance(spec.data, BuiltinData) else None
    rows = pa.concat_tables(tables).combine_chunks()
    return World(
        rows=rows,
        images=np.concatenate(arrays),
        targets=selection.targets,
        pseudonyms=tuple(
            store.pseudonym(t.identity, public_key=public_key) for t in selection.targets
        ),
        num_classes=selection.num_classes,
        seed=spec.seed,
        digest=world_digest(list(digests), selection),
        sample=_sample_of_targets(spec, rows, selection.targets),
        knowledge=prepare_knowledge(spec, spec.attacks, store, selection, progress),
        never_lent=_never_lent(spec, store, selection, progress),
    )


def world_digest(keys: list[str], selection: Selection) -> str:
    """Return the hash of the data and of who plays which part, from the images' keys."""
    return fingerprint([keys, [_cast(target) for target in selection.targets]])


def _never_lent(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> NeverLent | None:
    """Return images of the surrogates that no trial is trained on; None where there are none.

    They are no part of a trial's identity, since nothing but the count of false accepts sees them.
    """
    from tasks.datasets.builtin import held_out_rows, render_rows

    names = sorted({str(who.identity) for t in selection.targets for who in t.surrogates})
    drawn = isinstance(spec.data, BuiltinData) and spec.protect.surrogate_pool != "held-out"
    if names and (drawn or spec.protect.surrogate_pool == "builtin"):
        count = spec.data.test_images if isinstance(spec.data, BuiltinData) else DRAWN_HELD_OUT
        rows = held_out_rows(names, count, spec.seed)
        images = render_rows(rows["source"].to_pylist(), spec.seed, spec.data.image_size)
    else:
        rows = selection.split("held-out")
        if not rows.num_rows:
            return None
        rows, images, _ = images_of(spec, store, rows, "held-out", progress)
    return NeverLent(images, rows["identity"].to_numpy(zero_copy_only=False))


def _sample_of_targets(
    spec: ExperimentSpec, rows: pa.Table, targets: Sequence[TargetClass]
) -> TargetSample | None:
    """Return which targets are attacked, None for all of them."""
    from tasks.draws import Draws
    from tasks.evaluation.sampling import sample_targets

    count = spec.evaluation.sample_targets
    if count is None or count >= len(targets):
        return None
    return sample_targets(
        target_strata(spec.evaluation.sample_by, rows, targets),
        [int(target.label) for target in targets],
        count,
        Draws(spec.seed, ("targets to attack",)),
    )


def target_strata(
    by: Literal["attributes", "train-images", "nothing"],
    rows: pa.Table,
    targets: Sequence[TargetClass],
) -> list[str]:
    """Return each target's stratum: its first image's attributes, or a quarter by its images."""
    if by == "nothing":
        return [""] * len(targets)
    train = np.flatnonzero(rows["split"].to_numpy(zero_copy_only=False) == "train")
    labels, first, counts = np.unique(
        rows["label"].to_numpy()[train], return_index=True, return_counts=True
    )
    own = np.searchsorted(labels, [int(target.label) for target in targets])
    if by == "attributes":
        shown = rows["attributes"].take(pa.array(train[first[own]])).to_pylist()
        return ["+".join(sorted(names)) for names in shown]
    images = counts[own]
    return [f"quarter {q}" for q in np.searchsorted(np.quantile(images, (0.25, 0.5, 0.75)), images)]


def prepare_prior(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> tuple[Prior, str]:
    """Return the attacker's generator and its key: shipped, from a file, or trained and kept.

    Its images have the data's size; where the generator's own have another, they are resized.

    Raises:
        MissingDataError: the named file, or a shipped prior of this size, does not exist.
    """
    from attacks.prior_resize import fit_prior

    prior, key = _find_prior(spec, store, selection, progress)
    fitted = fit_prior(prior, spec.data.image_size, spec.prior.crop)
    return fitted, key if spec.prior.crop is None else fingerprint([key, spec.prior.crop])


def _find_prior(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> tuple[AnyPrior, str]:
    from attacks.prior_files import load_prior, save_prior

    source = spec.prior.source
    if isinstance(source, Path):
        if not source.is_file():
            raise MissingDataError(
                f"prior.source={str(source)!r} does not exist; name a .safetensors file that "
                "`dcdctl prior train` or `dcdctl prior convert` wrote, or use auto"
            )
        return load_prior(source), _file_key(source)
    shipped = _shipped(spec)
    if source == "shipped" and shipped is None:
        raise MissingDataError(
            f"no {spec.prior.kind} prior is shipped for {spec.data.kind} data of "
            f"{spec.data.image_size} pixels; use prior.source=train"
        )
    if shipped is not None and not trains_prior(spec):
        return load_prior(shipped), _file_key(shipped)

    rows, images, digest = images_of(spec, store, selection.split("public"), "public", progress)
    key = prior_key(spec, digest)
    folder = store.artifact("prior", key)

    def make(out: Path) -> dict[str, object]:
        prior = train_any_prior(
            spec, store, images, key, lambda step, steps, loss: progress("prior", step, steps)
        )
        note_people(out, store, rows)
        save_prior(prior, out / "prior.safetensors", prior_origin(spec, rows))
        return {"public_images": len(rows)}

    stage(folder, make)
    return load_prior(folder / "prior.safetensors"), key


def _shipped(spec: ExperimentSpec) -> Path | None:
    from attacks.prior_training import shipped_prior_path

    if isinstance(spec.data, BuiltinData) and spec.prior.kind == "decoder":
        return shipped_prior_path(spec.data.image_size)
    return None


def trains_prior(spec: ExperimentSpec) -> bool:
    """Say whether the attacker's generator is trained, and neither shipped nor in a file."""
    if isinstance(spec.prior.source, Path):
        return False
    source = spec.prior.source
    return source == "train" or (source != "shipped" and _shipped(spec) is None)


def train_any_prior(
    spec: ExperimentSpec,
    store: Store,
    images: Image8,
    key: str,
    on_step: Callable[[int, int, float], None],
) -> AnyPrior:
    """Train a prior of the kind that the experiment asks for; Ray must run.

    Args:
        spec: the experiment.
        store: a GAN's checkpoints are kept there while it is trained over several processes.
        images: the public images.
        key: of the prior.
        on_step: called with the step, the steps and the loss.
    """
    if spec.prior.kind == "gan":
        from orchestrator.distributed_prior import fit_gan

        unfinished = store.artifact("prior-unfinished", key)
        return fit_gan(images, spec.prior.gan, spec.seed, storage=unfinished, on_step=on_step)
    from attacks.prior_training import train_prior

    return train_prior(images, spec.prior, spec.seed, on_step=on_step)


def prior_key(spec: ExperimentSpec, digest: str) -> str:
    """Return the identity of a trained prior: its settings, its images, the seed."""
    return fingerprint([_prior_settings(spec), digest, spec.seed])


def _prior_settings(spec: ExperimentSpec) -> dict[str, object]:
    """Return the settings that decide what is trained; the number of processes is none of them."""
    if spec.prior.kind == "gan":
        return {"kind": "gan"} | spec.prior.gan.model_dump(mode="json", exclude={"workers"})
    return spec.prior.model_dump(mode="json", include={"steps", "kl_weight", "latent_size"})


def _file_key(path: Path) -> str:
    """Return the fingerprint of a file's bytes in hexadecimal, without holding them at once."""
    import hashlib

    digest = hashlib.sha256(b'"')
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk.hex().encode())
    digest.update(b'"')
    return digest.hexdigest()[:12]


def prior_origin(spec: ExperimentSpec, rows: pa.Table) -> dict[str, str]:
    """Return what a prior was trained on and how, for its header; no names."""
    origin = {
        "data": spec.data.kind,
        "identities": str(len(rows["identity"].unique())),
        "images": str(rows.num_rows),
        "settings": json.dumps(_prior_settings(spec)),
        "seed": str(spec.seed),
    }
    if isinstance(spec.data, BuiltinData):
        from tasks.datasets.builtin import PUBLIC_SEED
        from tasks.datasets.faces import FACE_VERSION

        origin |= {"public_seed": str(PUBLIC_SEED), "face_version": str(FACE_VERSION)}
    return origin


def evaluation_plan(world: World) -> pa.Table:
    """Return a plan of clean rows in which each surrogate has a class of its own."""
    from augment.recipes import PLAN_SCHEMA, ROLES

    labels = world.rows["label"].to_numpy().astype(np.int64)
    train, lent = world.mask("train"), world.mask("surrogate")
    own = {str(who.identity): who.label for target in world.targets for who in target.lenders}
    identities = world.rows["identity"].to_numpy(zero_copy_only=False)
    positions = np.flatnonzero(train | lent)
    wanted = np.where(
        lent[positions], [own.get(name, -1) for name in identities[positions]], labels[positions]
    )
    count = len(positions)
    return pa.table(
        [
            pa.array(np.arange(count), pa.int64()),
            pa.array(positions, pa.int64()),
            pa.array(wanted, pa.int32()),
            pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(count, np.int8)), pa.array(list(ROLES))
            ),
            pa.array(np.zeros(count, np.float32)),
            pa.array(np.zeros(count, np.uint64)),
            pa.array(np.zeros(count, np.bool_)),
            pa.array(np.zeros(count, np.uint32)),
        ],
        schema=PLAN_SCHEMA,
    )


def _cast(target: TargetClass) -> list[object]:
    """Return who plays which part, for a hash."""
    parts = (target.surrogates, target.decoys)
    return [target.identity, *([str(who.identity) for who in part] for part in parts)]


def _listing(spec: ExperimentSpec, rows: pa.Table) -> str:
    """Return a hash of which rows there are and, for files, of their sizes and times."""
    parts: list[object] = [rows["row_id"].to_pylist(), rows["split"].to_pylist()]
    if isinstance(spec.data, FolderData):
        from tasks.datasets.sources import file_stamps

        parts.append(file_stamps(rows["source"].to_pylist()))
    if isinstance(spec.data, BuiltinData) or spec.protect.surrogate_pool == "builtin":
        from tasks.datasets.faces import FACE_VERSION

        parts += [spec.seed, FACE_VERSION]
    return fingerprint(parts)
