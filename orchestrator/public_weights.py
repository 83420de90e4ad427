"""A network that learnt public people first: what transfer and fine-tuning start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from orchestrator.images_stage import Progress, images_of
from orchestrator.provenance import note_people
from orchestrator.selection import Selection
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage
from orchestrator.trial import PublicWeights, World, fit_here, starts_public
from tasks.defenses.spec import NoDefense
from tasks.spec import fingerprint
from tasks.training_spec import TrainingSpec

MOST_PEOPLE = 200
"""Public identities that the network learns, at most."""


def with_public_weights(
    spec: ExperimentSpec,
    trainings: Sequence[TrainingSpec],
    store: Store,
    selection: Selection,
    world: World,
    progress: Progress,
) -> World:
    """Return the world with the network that some of the trainings start from, if any does.

    Args:
        spec: the experiment.
        trainings: all that are to come.
        store: keeps the network.
        selection: the public images.
        world: what trials share.
        progress: called while it is trained.
    """
    from tasks.checkpoint import load_checkpoint

    if not any(starts_public(training) for training in trainings):
        return world
    folder = public_network(spec, store, selection, progress)
    if folder is None:
        return world
    state = load_checkpoint(folder).module.state_dict()
    return replace(world, public=PublicWeights(folder.name, state))


def public_network(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> Path | None:
    """Return the folder of a network that learnt public people; None where none can be told apart.

    It has the architecture and width of the experiment's own, and is trained once.
    """
    chosen = public_people(selection)
    if not chosen.num_rows:
        return None
    rows, images, digest = images_of(spec, store, chosen, "pretraining", progress)
    people = np.unique(rows["identity"].to_numpy(zero_copy_only=False))
    settings = public_training(spec)
    folder = public_folder(spec, store, digest)

    def make(out: Path) -> dict[str, object]:
        note_people(out, store, rows)
        recipe = plain_recipe(np.searchsorted(people, rows["identity"].to_pylist()))
        fit_here(
            images,
            recipe,
            len(people),
            settings,
            spec.seed,
            lambda epoch: progress("pretrained network", epoch, settings.epochs),
        ).save(out)
        return {"people": len(people), "images": rows.num_rows}

    stage(folder, make)
    return folder


def public_folder(spec: ExperimentSpec, store: Store, digest: str) -> Path:
    """Return where the network of public people is kept, made or not.

    Args:
        spec: the experiment.
        store: its storage.
        digest: of the images that it learns.
    """
    return store.artifact("pretrained", fingerprint([digest, public_training(spec), spec.seed]))


def public_training(spec: ExperimentSpec) -> TrainingSpec:
    """Return how that network is trained: plainly, in one process, else as the experiment's."""
    return spec.training.model_copy(update={"defense": NoDefense(), "workers": 1})


def public_people(selection: Selection) -> pa.Table:
    """Return the rows of public people with two images each, of so many; none of fewer than two."""
    public = selection.split("public")
    identities = public["identity"].to_numpy(zero_copy_only=False)
    names, counts = np.unique(identities, return_counts=True)
    people = names[counts > 1][:MOST_PEOPLE]
    people = people if len(people) > 1 else people[:0]
    return public.filter(pa.array(np.isin(identities, people)))


def plain_recipe(labels: np.ndarray) -> pa.Table:
    """Return a plan that takes image i as it is, under label i."""
    from augment.recipes import PLAN_SCHEMA

    count = len(labels)
    values = {"row_id": np.arange(count), "source_row": np.arange(count), "label": labels}
    columns = []
    for field in PLAN_SCHEMA:
        if field.name == "role":
            codes = pa.array(np.zeros(count, np.int8))
            columns.append(pa.DictionaryArray.from_arrays(codes, pa.array(["clean"])))
        else:
            column = np.asarray(values.get(field.name, np.zeros(count)))
            columns.append(pa.array(column.astype(field.type.to_pandas_dtype()), field.type))
    return pa.table(columns, schema=PLAN_SCHEMA)
