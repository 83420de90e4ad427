"""The judges of an experiment: trained once for its data, kept, and loaded as a panel."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.bundle import Bundle, pack, scratch, unpacked
from orchestrator.images_stage import Progress
from orchestrator.provenance import note_people
from orchestrator.publisher import publish
from orchestrator.spec import ExperimentSpec
from orchestrator.store import MANIFEST, Store, stage
from orchestrator.trial import World, fit_here
from orchestrator.world_stage import evaluation_plan
from tasks.spec import fingerprint
from tasks.training_spec import TrainingSpec

if TYPE_CHECKING:
    from tasks.evaluation.panel import Panel

FIRST_SEED, SECOND_SEED, CLOSED_SEED = 1_000_003, 2_000_003, 3_000_017
"""Added to the experiment's seed, which target classifiers have for themselves."""


@dataclass(frozen=True)
class Judge:
    """One classifier of the panel, and where it is kept."""

    role: str
    spec: TrainingSpec
    seed: int
    knows_surrogates: bool
    folder: Path


def judges_of(spec: ExperimentSpec, world: World, store: Store) -> list[Judge]:
    """Return the judges that the experiment asks for, the first one first."""
    judges = judges_for(spec, world.digest, store)
    for judge in judges:
        note_people(judge.folder, store, world.rows)
    return judges


def judges_for(spec: ExperimentSpec, digest: str, store: Store) -> list[Judge]:
    """Return the same for data of which only the hash is known."""
    wanted = [("first", spec.evaluation.judge(), FIRST_SEED, True)]
    if spec.evaluation.second.enabled:
        wanted.append(("second", spec.evaluation.second_judge(), SECOND_SEED, True))
    if spec.evaluation.paper_convention:
        wanted.append(("closed", spec.evaluation.judge(), CLOSED_SEED, False))
    judges = []
    for role, settings, seed, knows in wanted:
        parts = [settings, digest, spec.seed]
        key = fingerprint(parts if role == "first" else [*parts, role])
        judges.append(
            Judge(role, settings, spec.seed + seed, knows, store.artifact("evaluator", key))
        )
    return judges


def protocol_key(spec: ExperimentSpec, world: World) -> str:
    """Return a hash of all that a judgement depends on.

    Raises:
        DcdctlError: the face embedding that is named cannot be used: better now than after hours.
    """
    weights = ""
    if spec.evaluation.embedding.path is not None:
        from tasks.evaluation.features import load_embedding

        load_embedding(spec.evaluation.embedding)
        content = Path(spec.evaluation.embedding.path).read_bytes()
        weights = hashlib.sha256(content).hexdigest()
    return fingerprint([spec.evaluation, weights, world.digest, world.seed])


def train_judges(
    judges: list[Judge], world: World, progress: Progress | None = None
) -> dict[str, Bundle]:
    """Train the judges that are not there yet; return their files by role.

    Other architectures and other draws than any target classifier; nothing of them is ever shown to
    an attack.
    """
    for judge in judges:
        _train(judge, world, progress)
    return {judge.role: pack(judge.folder) for judge in judges}


def trained_judges(judges: list[Judge]) -> dict[str, Bundle]:
    """Return the files of those judges that are there already, by role."""
    return {judge.role: pack(judge.folder) for judge in judges if is_trained(judge)}


def is_trained(judge: Judge) -> bool:
    """Say whether a judge is there."""
    return (judge.folder / MANIFEST).is_file()


def load_panel(spec: ExperimentSpec, trained: dict[str, Bundle]) -> Panel:
    """Return the panel of trained judges."""
    from tasks.checkpoint import load_checkpoint
    from tasks.evaluation.features import classifier_features, load_embedding
    from tasks.evaluation.panel import Panel

    asked = spec.evaluation
    judges = {}
    for role, bundle in trained.items():
        with unpacked(bundle) as folder:
            judges[role] = load_checkpoint(folder).classifier()
    features, features_of = None, f"evaluation classifier ({asked.architecture})"
    if asked.image_metrics and asked.embedding.path is not None:
        features = load_embedding(asked.embedding)
        features_of = f"{asked.embedding.architecture}, from a file"
    elif asked.image_metrics:
        features = classifier_features(judges["first"])
    return Panel(
        first=judges["first"],
        second=judges.get("second"),
        closed=judges.get("closed"),
        features=features,
        features_of=features_of,
        knowledge=asked.knowledge,
        architectures=(asked.architecture, asked.second.architecture),
    )


def accuracy_counts(folder: Path) -> tuple[int, int]:
    """Return a judge's own right answers on clean test images, and their number."""
    hits, n = json.loads((folder / MANIFEST).read_text())["clean_hits"]
    return int(hits), int(n)


def seconds_of(judge: Judge) -> float:
    """Return how long a judge's training took; 0 where it was not noted."""
    return float(json.loads((judge.folder / MANIFEST).read_text()).get("seconds", 0.0))


def _train(judge: Judge, world: World, progress: Progress | None) -> None:
    from tasks.evaluation import clean_hits

    def make(out: Path) -> dict[str, object]:
        recipe, classes = evaluation_plan(world), world.num_classes
        if judge.knows_surrogates:
            classes += len({who for t in world.targets for who in t.lenders})
        else:
            recipe = recipe.filter(recipe["label"].to_numpy() < world.num_classes)
        checkpoint = fit_here(
            world.images,
            recipe,
            classes,
            judge.spec,
            judge.seed,
            None
            if progress is None
            else lambda epoch: progress(f"{judge.role} judge", epoch, judge.spec.epochs),
        )
        checkpoint.save(out)
        test = world.mask("test")
        hits = clean_hits(
            checkpoint.classifier(),
            world.images[test],
            world.rows["label"].to_numpy()[test].astype(np.int64),
            world.targets,
        )
        return {"clean_hits": hits.overall, "architecture": judge.spec.architecture}

    stage(judge.folder, make)


def judges_task(
    judges: list[Judge], trained: dict[str, Bundle], world: World, publisher: Any
) -> dict[str, Bundle]:
    """Train, in a Ray worker on any node, the judges that are not there; return all by role."""
    import torch

    torch.set_num_threads(1)
    found = dict(trained)
    for judge in judges:
        if judge.role not in found:
            with scratch() as folder:
                found |= train_judges([replace(judge, folder=folder)], world)
            publish(publisher, judge.folder, found[judge.role], MANIFEST)
    return found
