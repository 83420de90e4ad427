"""Hostile and ordinary trainers: the data of a finished trial, trained on as others would.

A contributor does not choose how the trainer trains. The recommended trial's own recipe (and the
control's, when asked) is given to every trainer of a list; each network meets the run's attacks and
judges. What was measured is kept as it comes, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from orchestrator.bundle import Bundle, pack, unpacked
from orchestrator.placement import task_options
from orchestrator.public_weights import public_network
from orchestrator.records import Accuracy, AttackRecord, Rate, TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, write_atomic
from orchestrator.summary import summarise
from orchestrator.trial import World, starts_public
from tasks.errors import AttackError, StoreError, TrainingError
from tasks.spec import Spec, fingerprint

if TYPE_CHECKING:
    from attacks.prior import Prior
    from orchestrator.images_stage import Progress
    from orchestrator.selection import Selection
    from tasks.pipelines.spec import AnyTrainer
    from tasks.training_spec import TrainingSpec

FILE = "trainers.json"


class TrainedBy(Spec):
    """One trial's data in the hands of one trainer."""

    trial_id: str
    index: int
    key: str = Field(description="Hash of the trial and of the trainer's settings.")
    trainer: str
    settings: dict[str, float | int | str | bool | None]
    error: str | None = Field(None, description="Why it was not measured.")
    rows: dict[str, tuple[int, int]] = Field(
        default_factory=dict, description="Of each role: rows given, and different ones trained on."
    )
    clean_accuracy: Accuracy | None = None
    attacks: tuple[AttackRecord, ...] = ()
    seconds: float = 0.0

    @property
    def worst(self) -> AttackRecord | None:
        """The attack with the highest accuracy@1, the first of equals."""
        return max(self.attacks, key=lambda a: a.accuracy_at_1.value, default=None)


def read_trainers(run: Path) -> tuple[TrainedBy, ...]:
    """Return what was measured, the control first; nothing where nothing was.

    Raises:
        StoreError: the file cannot be read.
    """
    path = run / FILE
    if not path.is_file():
        return ()
    try:
        return TypeAdapter(tuple[TrainedBy, ...]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise StoreError(
            f"{path} cannot be read: it was damaged, or written by another version; delete it, and "
            "run `dcdctl trainers` again"
        ) from error


def worst_trainer(found: Sequence[TrainedBy], index: int) -> TrainedBy | None:
    """Return under whom a trial leaks most, the first of equals; None where nobody was measured."""
    own = [one for one in found if one.index == index and one.worst is not None]
    return max(own, key=lambda one: _leak(one).value, default=None)


def _leak(one: TrainedBy) -> Rate:
    assert one.worst is not None
    return one.worst.accuracy_at_1


def still_to_train(
    spec: ExperimentSpec,
    records: Sequence[TrialRecord],
    run: Path,
    trainers: Sequence[AnyTrainer],
    control: bool = False,
    trial: int | None = None,
) -> list[tuple[TrialRecord, AnyTrainer]]:
    """Return which trial is still to be given to which trainer; errors are tried again.

    Args:
        spec: the experiment.
        records: of its trials.
        run: folder of the run.
        trainers: whom to give the data to.
        control: give them the undefended data too.
        trial: whose data; None is the recommended one's, or the nearest.
    """
    kept = {one.key for one in read_trainers(run) if one.error is None}
    found = summarise(spec, records, str(run))
    own = found.focus if trial is None else next(r.trial_id for r in records if r.index == trial)
    chosen = (own, found.control) if control else (own,)
    given = sorted((r for r in records if r.trial_id in chosen), key=lambda r: r.index)
    return [(r, t) for r in given for t in trainers if trainer_key(r.trial_id, t) not in kept]


def require_kept(run: Path, trials: Sequence[TrialRecord]) -> None:
    """Check that what other trainers need of each trial is still there.

    Args:
        run: folder of the run.
        trials: whose data are to be given away.

    Raises:
        StoreError: a model or a recipe is gone.
    """
    for record in trials:
        for name in ("checkpoint/meta.json", "recipe.parquet"):
            if not (run / "trials" / record.trial_id / name).is_file():
                raise StoreError(
                    f"trial {record.index} has no {name} any more, which other trainers need; "
                    "`dcdctl clean --keep-records` takes such files: name a trial that has them, "
                    "or repeat the run with --fresh"
                )


def trainer_key(trial_id: str, trainer: AnyTrainer) -> str:
    """Return the identity of one measurement."""
    return fingerprint([trial_id, trainer])


def measure_trainers(
    spec: ExperimentSpec,
    store: Store,
    selection: Selection,
    run: Path,
    waiting: Sequence[tuple[TrialRecord, AnyTrainer]],
    shared: dict[str, Any],
    progress: Progress,
) -> None:
    """Train, attack and judge, one Ray task each, and keep every result as it comes.

    Args:
        spec: the experiment.
        store: keeps the network that fine-tuning starts from.
        selection: the public images.
        run: folder of the run.
        waiting: trials, and who trains on their data.
        shared: references to `world` and `judges`, and the `prior`.
        progress: called as trainers end.
    """
    import ray

    from tasks.checkpoint import load_checkpoint

    if not waiting:
        return
    folders = {r.trial_id: run / "trials" / r.trial_id for r, _ in waiting}
    training = {i: load_checkpoint(f / "checkpoint").meta.training for i, f in folders.items()}
    pretrained = None
    if any(t.name == "fine-tune" or starts_public(training[r.trial_id]) for r, t in waiting):
        pretrained = public_network(spec, store, selection, progress)
    task = ray.remote(**task_options(spec.compute.gpus_per_trial), max_retries=2)(_trainer_task)
    given = (shared["world"], ray.put(shared["prior"]), shared["judges"])
    start = ray.put(None if pretrained is None else pack(pretrained))
    trials = {
        trial: (ray.put(pack(folder, "recipe.parquet")), training[trial])
        for trial, folder in folders.items()
    }
    left = [task.remote(r, t, *trials[r.trial_id], spec, start, *given) for r, t in waiting]
    progress("trainers", 0, len(waiting))
    while left:
        ended, left = ray.wait(left, num_returns=1)
        _keep(run, ray.get(ended))
        progress("trainers", len(waiting) - len(left), len(waiting))


def _keep(run: Path, new: Sequence[TrainedBy]) -> None:
    keys = {one.key for one in new}
    found = [*(one for one in read_trainers(run) if one.key not in keys), *new]
    found.sort(key=lambda one: (one.index, one.trainer, one.key))
    text = json.dumps([one.model_dump(mode="json") for one in found], indent=2)
    write_atomic(run / FILE, text + "\n")


def _trainer_task(
    record: TrialRecord,
    trainer: AnyTrainer,
    recipe: Bundle,
    training: TrainingSpec,
    spec: ExperimentSpec,
    pretrained: Bundle | None,
    world: World,
    prior: Prior,
    judges: dict[str, Bundle],
) -> TrainedBy:
    """Train on one trial's data, attack and judge, in a Ray worker."""
    import torch

    from orchestrator.attacking import attack_all
    from orchestrator.judges import load_panel
    from orchestrator.judging import judge_all
    from orchestrator.trial import accuracy_of
    from tasks.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    started = time.monotonic()
    with unpacked(recipe) as folder:
        plan = pq.read_table(folder / "recipe.parquet", memory_map=False)
    result = TrainedBy(
        trial_id=record.trial_id,
        index=record.index,
        key=trainer_key(record.trial_id, trainer),
        trainer=trainer.name,
        settings=trainer.model_dump(mode="json", exclude={"name"}),
    )
    weights = None
    if pretrained is not None:
        with unpacked(pretrained) as folder:
            weights = load_checkpoint(folder).module.state_dict()
    try:
        module, rows = train_as(trainer, world, plan, training, weights)
        classifier = _classifier(module, world, training)
        results = attack_all(classifier, prior, world, spec.attacks)
    except (AttackError, TrainingError) as error:
        return result.model_copy(update={"error": str(error)})
    attacks, _ = judge_all(results, load_panel(spec, judges), world, spec.attacks)
    return result.model_copy(
        update={
            "rows": rows,
            "clean_accuracy": accuracy_of(classifier, world),
            "attacks": attacks,
            "seconds": round(time.monotonic() - started, 1),
        }
    )


def train_as(
    trainer: AnyTrainer,
    world: World,
    recipe: pa.Table,
    training: TrainingSpec,
    pretrained: dict[str, Any] | None,
) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Train on a plan as a trainer does; return the network, and of each role given and used rows.

    The seed and its use are those of the trial, so that only the trainer differs.
    """
    import torch

    from orchestrator.trial import training_rows
    from tasks.classifiers import build_model
    from tasks.device import default_device
    from tasks.draws import Draws
    from tasks.pipelines.pipeline import Upload
    from tasks.pipelines.registry import make_trainer
    from tasks.training import fit

    training = training.model_copy(update={"workers": 1})
    draws, pipeline = Draws(world.seed, ("train",)), make_trainer(trainer, pretrained)
    images, labels = training_rows(world.images, recipe)
    settings = pipeline.settings(training)
    given = Upload(images, labels, world.num_classes, training, draws.child("trainer"))
    rows = pipeline.rows(given)
    chosen = torch.from_numpy(rows)
    model = build_model(settings, world.num_classes, draws)
    fit(
        model,
        pipeline.pixels(images[chosen]),
        labels[chosen],
        settings,
        draws,
        device=default_device(),
        pipeline=pipeline,
        public=pretrained,
    )
    roles = np.asarray(recipe["role"].cast(pa.string()).to_pylist())
    used = np.zeros(len(roles), dtype=bool)
    used[rows] = True
    counted = {
        str(role): (int((roles == role).sum()), int((used & (roles == role)).sum()))
        for role in np.unique(roles)
    }
    return model, counted


def _classifier(module: Any, world: World, training: TrainingSpec) -> Any:
    from tasks.checkpoint import Checkpoint, CheckpointMeta

    meta = CheckpointMeta(
        training=training, num_classes=world.num_classes, image_size=world.images.shape[1]
    )
    return Checkpoint(module, meta).classifier()
