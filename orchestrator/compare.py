"""`dcdctl compare`: run every defence on the same data and attacks, or read finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console

from orchestrator.comparison import Comparison, FinishedRun, compare, has_control
from orchestrator.comparison_plot import curves_figure
from orchestrator.comparison_table import markdown
from orchestrator.finished_run import load_run
from orchestrator.spec import ExperimentSpec
from orchestrator.spending import run_spent
from orchestrator.store import Store, write_atomic
from tasks.errors import BudgetReachedError, FailedTrialsError, SpecError, StoreError
from tasks.spec import Spec, fingerprint

if TYPE_CHECKING:
    from orchestrator.sweep import Mode


class CompareOutcome(Spec):
    """Where the table is, and what is in it."""

    table: str = Field(description="Path of the Markdown page; table.json and curves.* are beside.")
    comparison: Comparison

    def render(self, console: Console) -> None:
        """Print it for people."""
        console.print(markdown(self.comparison), highlight=False, markup=False, soft_wrap=True)
        console.print(f"Table: {self.table}", highlight=False)


def run_comparison(
    specs: Sequence[ExperimentSpec],
    seeds: Sequence[int] | None,
    console: Console,
    *,
    mode: Mode = "new",
) -> CompareOutcome:
    """Train and attack every defence of every experiment and seed, and write the table.

    Args:
        specs: the experiments; each is a pair of columns for every attack.
        seeds: None takes each experiment's own.
        console: for progress.
        mode: as for a sweep. A run that is finished already is read and not run again.

    A budget is that of the whole comparison.

    Raises:
        BudgetReachedError: after the table of what there is was written: the budget ended it.
        FailedTrialsError: after the table was written: at least one trial failed.
    """
    ran = run_each(
        [comparing(spec, seed) for spec in specs for seed in seeds or [spec.seed]],
        console,
        mode=mode,
    )
    return table_of(ran, Store(specs[0].storage).root / "comparisons")


@dataclass
class Ran:
    """What became of the runs of a comparison.

    Attributes:
        folders: of the runs that were begun.
        failed: a sentence for each run with a trial that failed.
        reached: that the budget ended it, else "".
    """

    folders: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reached: str = ""


def run_each(
    specs: Sequence[ExperimentSpec],
    console: Console,
    *,
    mode: Mode = "new",
    begins: Callable[[int, ExperimentSpec], None] = lambda *_: None,
    ended: Callable[[ExperimentSpec], None] = lambda _: None,
) -> Ran:
    """Run the sweeps of a comparison one after the other, on one budget.

    Args:
        specs: what `comparing` returned.
        console: for progress.
        mode: as for a sweep.
        begins: is called with the number of a run, from 0 on, and its experiment before it.
        ended: is called when a run has ended.
    """
    from orchestrator.sweep import run_sweep

    ran = Ran()
    for number, spec in enumerate(specs):
        begins(number, spec)
        try:
            run_sweep(spec, mode=mode, console=console, spent_elsewhere=_elsewhere(specs, spec))
        except FailedTrialsError as error:
            ran.failed.append(str(error))
        except BudgetReachedError as error:
            ran.reached = f"run {number + 1} of {len(specs)}: {error}"
        ran.folders.append(_folder(spec))
        ended(spec)
        if ran.reached:
            break
    return ran


def _elsewhere(specs: Sequence[ExperimentSpec], spec: ExperimentSpec) -> float:
    """Return what all other runs of a comparison have spent, those that come later included.

    In another order, or with other seeds, an earlier sitting may have begun them.
    """
    others = {_folder(one): one for one in specs}
    others.pop(_folder(spec), None)
    return sum(run_spent(folder, one) for folder, one in others.items())


def table_of(ran: Ran, out: Path) -> CompareOutcome:
    """Write the table of a comparison's runs; it is written also where some of it is missing.

    Args:
        ran: what became of the runs.
        out: folder of comparisons.

    Raises:
        BudgetReachedError: the budget ended it.
        FailedTrialsError: at least one trial failed.
    """
    folders = ran.folders
    if ran.reached:
        folders = [folder for folder in folders if has_control(load_run(folder).records)]
        if not folders:
            raise BudgetReachedError(f"{ran.reached}; nothing can be compared yet")
    outcome = compare_runs(folders, out)
    if ran.reached:
        raise BudgetReachedError(f"{ran.reached}; the table {outcome.table} has what there is")
    if ran.failed:
        raise FailedTrialsError(f"{ran.failed[0]}; the table {outcome.table} leaves them out")
    return outcome


def comparing(spec: ExperimentSpec, seed: int) -> ExperimentSpec:
    """Return the experiment as one that tries defences instead of levers.

    Every row's network is built once, so that a defence which it does not fit is refused at once.

    Raises:
        SpecError: a network lacks what a defence needs, two rows are the same trial, or the
            experiment has a defence of its own, which no row would be trained with.
    """
    from orchestrator.comparison_spec import compared_points, repeated_points
    from tasks.classifiers import build_model
    from tasks.draws import Draws

    if (own := spec.training.defense.name) != "none":
        raise SpecError(
            f"training.defense: {own} would not be used, since every row of a comparison brings "
            "its own defence; leave it out, or name it in sweep.rows"
        )
    sweep = spec.sweep.model_copy(update={"search": "defenses"})
    spec = spec.model_copy(update={"seed": seed, "sweep": sweep})
    if repeated := repeated_points(spec):
        title, first = repeated[0]
        there = "the control, which is always there" if first == "none" else f"the row {first!r}"
        raise SpecError(
            f"sweep.rows: the row {title!r} is the same trial as {there}; leave it out, or change "
            "one of its settings"
        )
    for point in compared_points(spec):
        build_model(point.training, 2, Draws(seed))
    return spec


def compare_runs(folders: Sequence[Path], out: Path) -> CompareOutcome:
    """Put finished runs into one table; nothing is run.

    Args:
        folders: of the runs.
        out: a folder; the table gets a folder in it, named by what is compared.

    Raises:
        StoreError: a folder holds no run, or its control is missing.
        SpecError: the runs do not fit into one table.
    """
    runs = []
    for folder in folders:
        run = load_run(folder)
        if not has_control(run.records):
            raise StoreError(
                f"the run {folder} has no finished control, so nothing in it can be compared; "
                "resume it first"
            )
        runs.append(FinishedRun(folder.name, run.spec, run.records))
    found = compare(runs)
    place = out / fingerprint(sorted(run.name for run in runs))
    write_atomic(place / "table.json", found.model_dump_json(indent=2) + "\n")
    write_atomic(place / "table.md", markdown(found))
    figure = curves_figure(found)
    write_atomic(place / "curves.png", figure.png())
    write_atomic(place / "curves.svg", figure.svg())
    return CompareOutcome(table=str(place / "table.md"), comparison=found)


def _folder(spec: ExperimentSpec) -> Path:
    from orchestrator.selection import select
    from orchestrator.sweep import run_fingerprint

    return Store(spec.storage).run(run_fingerprint(spec, select(spec)))
