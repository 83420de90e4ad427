"""`dcdctl trainers`: give a finished run's data to other trainers, and attack what they train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from orchestrator.trainers import (
    TrainedBy,
    measure_trainers,
    read_trainers,
    require_kept,
    still_to_train,
)
from tasks.errors import SpecError, StoreError
from tasks.pipelines.spec import AnyTrainer, TrainerSpec
from tasks.spec import Spec


class TrainersOutcome(Spec):
    """What attacks reached under each trainer."""

    report: str
    measured: tuple[TrainedBy, ...]
    sentence: str | None = Field(description="The worst of them.")

    def render(self, console: Console) -> None:
        """Print it for people."""
        table = Table(box=None, pad_edge=False)
        for heading in ("trainer", "trial", "rows used", "clean accuracy", "worst attack", ""):
            table.add_column(heading)
        for one in self.measured:
            given, used = (sum(pair[i] for pair in one.rows.values()) for i in (0, 1))
            worst, clean = one.worst, one.clean_accuracy
            table.add_row(
                one.trainer,
                "control" if one.index == 0 else str(one.index),
                f"{used} of {given}" if one.rows else "",
                "" if clean is None else f"{clean.overall.value:.3f}",
                one.error or ("" if worst is None else str(worst.accuracy_at_1)),
                "" if worst is None else worst.name,
            )
        console.print(table)
        if self.sentence:
            console.print(self.sentence, highlight=False)
        console.print(f"Report: {self.report}", highlight=False, soft_wrap=True)


def all_trainers() -> tuple[AnyTrainer, ...]:
    """Return every trainer with its defaults."""
    from typing import get_args

    return tuple(kind() for kind in get_args(AnyTrainer))


def parse_trainers(words: Sequence[str]) -> tuple[AnyTrainer, ...]:
    """Return the trainers that words name: a name, or a section such as {name: jpeg, quality: 30}.

    Raises:
        SpecError: no trainer has that name, or a setting of it is wrong.
    """
    import yaml

    from tasks.suggestions import did_you_mean

    names = [trainer.name for trainer in all_trainers()]
    found: list[AnyTrainer] = []
    for word in words:
        value = yaml.safe_load(word)
        name = value.get("name") if isinstance(value, dict) else value
        if name not in names:
            raise SpecError(
                f"trainer {name!r} is unknown{did_you_mean(str(name), names)}; there are "
                f"{', '.join(names)}"
            )
        try:
            found.append(TypeAdapter(TrainerSpec).validate_python(value))
        except ValidationError as error:
            first = error.errors()[0]
            raise SpecError(
                f"trainer {word!r}: {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
            ) from error
    return tuple(found)


def run_trainers(
    run: Path,
    trainers: Sequence[AnyTrainer],
    console: Console,
    *,
    control: bool = False,
    trial: int | None = None,
) -> TrainersOutcome:
    """Measure what is not measured yet, and write the report again.

    Args:
        run: folder of a finished run, in its storage.
        trainers: whom to give the data to; empty takes the run's own list, or else all.
        console: for progress.
        control: give them the undefended data too.
        trial: whose data; None is the recommended one's, or the nearest.

    Raises:
        StoreError: the folder holds no run, or no trial to give away, or its files are gone.
        SpecError: there is no such trial, or it failed.
    """
    import ray

    from clusters.embedded import embedded_ray
    from orchestrator.finished_run import load_run
    from orchestrator.forgotten import require_whole
    from orchestrator.judges import judges_of, train_judges
    from orchestrator.prior_stage import prepare_prior
    from orchestrator.progress import Display
    from orchestrator.report import write_report
    from orchestrator.selection import choose
    from orchestrator.store import Store
    from orchestrator.summary import summarise
    from orchestrator.trainers_section import sentence
    from orchestrator.world_stage import prepare_world

    require_whole(run)
    found = load_run(run)
    if summarise(found.spec, found.records, str(run)).focus is None:
        raise StoreError(
            f"{run} holds no finished trial with a defence; resume the sweep, then ask again"
        )
    ended = [record.index for record in found.records if record.status == "ok"]
    if trial is not None and trial not in ended:
        raise SpecError(
            f"--trial {trial}: {run} has no finished trial of that number; `dcdctl trials "
            f"{run.name}` lists those that it has"
        )
    wanted = tuple(trainers) or found.spec.hostile_trainers or all_trainers()
    spec = found.spec.model_copy(update={"storage": str(run.absolute().parents[1])})
    waiting = still_to_train(spec, found.records, run, wanted, control, trial)
    require_kept(run, [record for record, _ in waiting])
    if waiting:
        store, display = Store(spec.storage), Display(console)
        with store.locked(), embedded_ray(spec.compute.cpus), display.live():
            selection = choose(spec, store, display.stage)
            world = prepare_world(spec, store, selection, display.stage)
            prior, _ = prepare_prior(spec, store, selection, display.stage)
            judges = train_judges(judges_of(spec, world, store), world, display.stage)
            shared = {"world": ray.put(world), "prior": prior, "judges": ray.put(judges)}
            measure_trainers(spec, store, selection, run, waiting, shared, display.stage)
    report = write_report(run)
    measured = read_trainers(run)
    return TrainersOutcome(
        report=str(report), measured=measured, sentence=sentence(measured, found.records)
    )
