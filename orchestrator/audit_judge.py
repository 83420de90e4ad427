"""The judge of an audit: trained on the people's real images, never on the audited model.

Everything that it knows comes from the images. Its network is another one than the audited model's,
and its draws are its own; a judge that is given may share no weight with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from attacks.attack import to_bounds
from orchestrator.audit_records import JudgeSummary
from orchestrator.images_stage import Progress, images_of
from orchestrator.provenance import note_people
from orchestrator.records import Rate
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage
from orchestrator.trial import World, fit_here
from orchestrator.world_stage import evaluation_plan
from tasks.checkpoint import load_checkpoint
from tasks.classifiers import Classifier
from tasks.datasets.builtin import render_rows, surrogate_rows
from tasks.datasets.folder import choose_rows, list_folder
from tasks.datasets.spec import FolderData, PublicFrom
from tasks.errors import DataError, MissingDataError, TargetClassError
from tasks.evaluation import to_unit
from tasks.foreign_classifier import (
    NORMALISATIONS,
    Foreign,
    ForeignClassifier,
    Inputs,
    shared_weight,
)
from tasks.spec import fingerprint
from tasks.types import UNIT, ClassId, IdentityId, Image8, TargetClass

OTHERS, OTHERS_IMAGES = 12, 20
"""Drawn faces that fill up the other people where few are given, and images of each."""

JUDGE_SEED = 4_000_037
"""Added to the seed: no classifier that is trained elsewhere has it."""

SECOND_CHOICE = {"small-vgg": "small-resnet"}
"""Another network, where the audited model is of the judge's own kind."""

_BATCH = 64

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class People:
    """Real images of those attacked, and of others beside them.

    Attributes:
        world: images and rows; label i is classes[i], those above are other people.
        classes: of the audited model, in the order of the attack.
    """

    world: World
    classes: tuple[int, ...]

    def shown(self, splits: Sequence[str], most: int) -> tuple[Image8, Labels]:
        """Return images of those attacked, at most so many of each, and their labels here."""
        labels = self.world.rows["label"].to_numpy().astype(np.int64)
        wanted = np.isin(self.world.rows["split"].to_numpy(zero_copy_only=False), list(splits))
        chosen = [
            np.flatnonzero(wanted & (labels == label))[:most] for label in range(len(self.classes))
        ]
        rows = np.concatenate(chosen)
        return self.world.images[rows], labels[rows]


@dataclass(frozen=True)
class Judge:
    """Who judges.

    Attributes:
        classifier: of images in the unit range.
        labels: of the attacked people among its classes, in the order of the attack.
        knows: its right answers on each one's own images, empty where that was not checked.
        summary: for the record.
    """

    classifier: Classifier
    labels: tuple[int, ...]
    knows: tuple[Rate, ...]
    summary: JudgeSummary


def folders_of(images: Path, names: Sequence[str] | None) -> dict[int, str]:
    """Return which folder of real images is of which class: by number, or by the class's name.

    Raises:
        MissingDataError: the folder does not exist.
    """
    if not images.is_dir():
        raise MissingDataError(
            f"--images {images} is no folder; name one that holds a folder of images for each "
            "person, called as the class or by its number"
        )
    known = {name: i for i, name in enumerate(names or ())}
    found: dict[int, str] = {}
    for path in sorted(images.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if path.name in known:
            found[known[path.name]] = path.name
        elif path.name.isdecimal() and path.name.isascii():
            found.setdefault(int(path.name), path.name)
    return found


def read_people(
    spec: ExperimentSpec,
    store: Store,
    images: Path,
    classes: Sequence[int],
    names: Sequence[str] | None,
    size: int,
    progress: Progress,
) -> tuple[People, list[str]]:
    """Decode the real images with Ray Data; folders that are not attacked are other people.

    Returns:
        The people, and what is to be said of them.

    Raises:
        MissingDataError: somebody who is attacked has no folder.
        TargetClassError: or fewer than two images.
    """
    folders = folders_of(images, names)
    for label in classes:
        if label not in folders:
            raise MissingDataError(
                f"--images {images} has no folder for class {label}; add one called "
                f"{str(label)!r} or as in --labels, or leave it out of --classes"
            )
    attacked = [folders[label] for label in classes]
    others = sorted(
        path.name
        for path in images.iterdir()
        if path.is_dir() and path.name not in attacked and any(path.iterdir())
    )
    drawn = max(0, OTHERS - len(others))
    everybody = (*attacked, *others)
    if len(everybody) < 2:
        raise TargetClassError(
            f"--images {images} holds one person; a judge needs images of at least one other, in "
            "a folder beside, to tell them apart"
        )
    data = FolderData(
        kind="folder",
        root=str(images),
        private=everybody,
        surrogates=(),
        public=(),
        public_from=PublicFrom(root=str(images)),  # required, and nothing is taken of it
        image_size=size,
    )
    rows = choose_rows(data, spec.seed, list_folder(data), None)
    own = spec.model_copy(update={"data": data})
    table, decoded, key = images_of(own, store, rows, "people", progress)
    notes = []
    parts, pictures = [table], [np.asarray(decoded)]
    if drawn:
        filled, faces = _drawn_faces(drawn, len(everybody), spec.seed, size)
        parts.append(filled.append_column("native", pa.array(np.zeros(len(faces), np.uint32))))
        pictures.append(faces)
        notes.append(
            f"{len(others)} other people are in --images; {drawn} drawn faces fill them up, which "
            "a judge tells from photos easily: put more real ones beside"
        )
    targets = tuple(
        TargetClass(ClassId(i), IdentityId(name), ()) for i, name in enumerate(attacked)
    )
    world = World(
        rows=pa.concat_tables(parts).combine_chunks(),
        images=np.concatenate(pictures),
        targets=targets,
        pseudonyms=tuple(store.pseudonym(name) for name in attacked),
        num_classes=len(everybody) + drawn,
        seed=spec.seed,
        digest=fingerprint([key, list(everybody), len(attacked), drawn]),
    )
    return People(world, tuple(classes)), notes


def _drawn_faces(count: int, first: int, seed: int, size: int) -> tuple[pa.Table, Image8]:
    """Return rows and images of drawn faces as classes from `first` on, the last images to test."""
    rows = surrogate_rows(count, OTHERS_IMAGES, seed)
    faces = render_rows(rows["source"].to_pylist(), seed, size)
    labels = np.repeat(np.arange(count), OTHERS_IMAGES) + first
    tests = np.tile(np.arange(OTHERS_IMAGES) >= OTHERS_IMAGES - 4, count)
    columns = {"label": labels, "split": np.where(tests, "test", "train")}
    for name, values in columns.items():
        index = rows.schema.get_field_index(name)
        field = rows.schema.field(index)
        rows = rows.set_column(index, field, pa.array(values, field.type))
    return rows, faces


def train_judge(
    spec: ExperimentSpec, store: Store, people: People, audited: str, progress: Progress
) -> Judge:
    """Train the judge on the people's images, or load it.

    Args:
        spec: `evaluation` is how.
        store: where it is kept.
        people: those attacked and others.
        audited: architecture of the audited model, which the judge must not have.
        progress: called after each epoch.
    """
    world = people.world
    training = spec.evaluation.judge()
    if training.architecture == audited:
        other = SECOND_CHOICE.get(audited, "small-vgg")
        training = training.model_copy(update={"architecture": other})
    folder = store.artifact("evaluator", fingerprint(["audit", training, world.digest, world.seed]))

    def make(out: Path) -> dict[str, object]:
        note_people(out, store, world.rows)
        checkpoint = fit_here(
            world.images,
            evaluation_plan(world),
            world.num_classes,
            training,
            spec.seed + JUDGE_SEED,
            lambda epoch: progress("judge", epoch, training.epochs),
        )
        checkpoint.save(out)
        return {"architecture": training.architecture}

    stage(folder, make)
    judge = load_checkpoint(folder).classifier()
    knows = right_answers(judge, people, range(len(people.classes)), ("test",))
    return Judge(
        judge,
        tuple(range(len(people.classes))),
        knows,
        JudgeSummary(
            kind="trained",
            architecture=training.architecture,
            classes=world.num_classes,
            on_real_images=summed(knows),
        ),
    )


def given_judge(
    folder: Path, audited: Foreign | None, classes: Sequence[int], people: People | None
) -> Judge:
    """Load a judge that knows the classes under the audited model's numbers.

    Raises:
        MissingDataError, DataError: it cannot be read, has too few classes, or is the audited
            model itself.
    """
    trained = load_checkpoint(folder)
    if trained.meta.num_classes <= max(classes):
        raise DataError(
            f"the judge {folder} has {trained.meta.num_classes} classes and none for class "
            f"{max(classes)}; it must know the people under the audited model's numbers"
        )
    own = dict(trained.module.named_parameters())
    if audited is not None and (name := shared_weight(own, audited.weights)) is not None:
        raise DataError(
            f"the judge {folder} has the weights of the audited model ({name!r}); a model cannot "
            "judge itself: train one apart, on the people's images"
        )
    mean, std = NORMALISATIONS["half"]
    inputs = Inputs(trained.meta.image_size, mean, std)
    classifier = ForeignClassifier(trained.module, trained.meta.num_classes, inputs)
    knows = () if people is None else right_answers(classifier, people, classes, ("train", "test"))
    return Judge(
        classifier,
        tuple(classes),
        knows,
        JudgeSummary(
            kind="checkpoint",
            architecture=trained.meta.training.architecture,
            classes=trained.meta.num_classes,
            on_real_images=summed(knows),
        ),
    )


def right_answers(
    classifier: Classifier,
    people: People,
    labels: Sequence[int],
    splits: Sequence[str],
    most: int = 64,
) -> tuple[Rate, ...]:
    """Return how often a classifier names each attacked person on their own images.

    Args:
        classifier: of images in the unit range.
        people: the images.
        labels: of the people among its classes, in the order of the attack.
        splits: of the images.
        most: images of each.
    """
    images, own = people.shown(splits, most)
    named = [
        classifier.labels(to_bounds(to_unit(images[i : i + _BATCH]), UNIT, classifier.bounds))
        for i in range(0, len(images), _BATCH)
    ]
    right = np.concatenate([part.cpu().numpy() for part in named]) == np.array(labels)[own]
    return tuple(
        Rate.of(int(right[own == i].sum()), int((own == i).sum()))
        for i in range(len(people.classes))
    )


def summed(rates: Sequence[Rate]) -> Rate | None:
    """Return the rate over several people, None of nobody."""
    if not rates:
        return None
    return Rate.of(sum(rate.successes for rate in rates), sum(rate.n for rate in rates))
