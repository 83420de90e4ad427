"""What the adaptive attacker knows of the targets: attributes, and a reader of them, made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from orchestrator.provenance import note_people
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage
from tasks.draws import Draws
from tasks.spec import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.knowledge import Knowledge
    from attacks.spec import AttackSpec
    from orchestrator.images_stage import Progress
    from orchestrator.selection import Selection

READ_IMAGES, READ_STEPS = 4000, 400
"""Public images that the reader of attributes learns on, and its steps."""


def prepare_knowledge(
    spec: ExperimentSpec,
    attacks: Sequence[AttackSpec],
    store: Store,
    selection: Selection,
    progress: Progress,
    steps: int = READ_STEPS,
) -> Knowledge | None:
    """Return what adaptive attacks by attributes need; None where none is listed or nothing known.

    The reader learns on public images and their public attributes; of the targets only the
    attributes are known, as an acquaintance knows them.

    Args:
        spec: the experiment.
        attacks: that may need it.
        store: keeps the reader.
        selection: who is protected, and the public images.
        progress: called while images are decoded.
        steps: of the reader; fewer only where its speed is measured.
    """
    from attacks.knowledge import Knowledge, chosen_attributes, train_reader
    from attacks.spec import AdaptiveSpec
    from augment.opposites import attribute_flags
    from orchestrator.images_stage import images_of
    from tasks.checkpoint import Checkpoint, CheckpointMeta, load_checkpoint
    from tasks.training_spec import TrainingSpec

    wanted = [a for a in attacks if isinstance(a, AdaptiveSpec) and a.strategy == "attribute"]
    if not wanted or not selection.targets:
        return None
    public = _sample(selection.split("public"))
    people = sorted(set(public["identity"].to_pylist()))
    flags, names = attribute_flags(public, people)
    known = chosen_attributes(names, wanted[0].known)
    if not known:
        return None
    chosen = [names[i] for i in known]
    rows, images, digest = images_of(spec, store, public, "read", progress)
    key = fingerprint([digest, chosen, spec.seed, steps])
    folder = store.artifact("reader", key)

    def make(out: Path) -> dict[str, object]:
        note_people(out, store, rows)
        place = {name: i for i, name in enumerate(people)}
        of = [place[name] for name in rows["identity"].to_pylist()]
        draws = Draws(spec.seed, ("reader",))
        network = train_reader(images, flags[of][:, known], steps, draws)
        meta = CheckpointMeta(
            training=TrainingSpec(architecture="small-resnet", width=16),
            num_classes=len(known),
            image_size=images.shape[1],
            losses=(),
        )
        Checkpoint(network, meta).save(out)
        return {"attributes": chosen, "public_images": len(rows)}

    stage(folder, make)
    return Knowledge(load_checkpoint(folder).classifier(), _targets(selection, chosen))


def _targets(selection: Selection, chosen: list[str]) -> dict[int, Tensor]:
    """Return which of the chosen attributes each target has, by label."""
    import torch

    from augment.opposites import attribute_flags

    identities = [str(target.identity) for target in selection.targets]
    has, names = attribute_flags(selection.split("train"), identities)
    columns = [names.index(name) if name in names else len(names) for name in chosen]
    nobody = np.zeros((len(has), 1), np.bool_)  # an attribute that no private row carries
    flags = np.concatenate([has, nobody], axis=1)[:, columns]
    labels = [int(target.label) for target in selection.targets]
    return {label: torch.from_numpy(row) for label, row in zip(labels, flags, strict=True)}


def _sample(public: pa.Table) -> pa.Table:
    rank = Draws(0, ("reader",)).bits(public["row_id"].to_numpy())[:, 0]
    return public.take(pa.array(np.sort(np.argsort(rank, kind="stable")[:READ_IMAGES])))
