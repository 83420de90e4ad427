"""What a person sees while a command runs: a line when a thing is done, a bar before that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from augment.spec import DcdSpec
from orchestrator.events import EventLog, to_stdout
from orchestrator.records import TrialRecord
from orchestrator.retries import Lost


class Display:
    """Progress on a console; quiet lines where there is no terminal.

    Args:
        console: where to print; `Console(quiet=True)` prints nothing.

    Attributes:
        events: what is shown is written there too; a run puts its own journal here.
    """

    def __init__(self, console: Console) -> None:
        self.console = Console(quiet=True) if to_stdout() else console
        self.events = EventLog()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the bars inside."""
        with self._progress:
            yield

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.events.write("line", text=Text.from_markup(text).plain)
        self._print(text)

    def warn(self, text: str) -> None:
        """Print a warning, which stays, and is an event of its own."""
        self.events.write("warning", text=text)
        self._print(f"  [yellow]warning:[/yellow] {escape(text)}")

    def _print(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal)

    def stage(
        self, name: str, done: int, total: int, note: str = "", *, seconds: float | None = None
    ) -> None:
        """Move a stage's bar; at its end the bar becomes a line with the seconds it took.

        Args:
            name: of the stage.
            done: things that are done.
            total: all things.
            note: instead of the counts.
            seconds: that it took, where another process measured them.
        """
        now = time.monotonic()
        started = self._started.setdefault(name, now)
        took = now - started if seconds is None else seconds
        self.events.stage(name, done, total, note, took if done >= total else None)
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note=note)
        text = note or f"{done:,} of {total:,}"
        self._progress.update(self._tasks[name], completed=done, total=total, note=text)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(name))
            del self._started[name]
            self._print(f"  {name:<28} {total:>7,}   {took:6.1f} s")


class Pace:
    """How fast things are done, and how long the rest will take.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: tuple[float, int] | None = None

    def note(self, done: int, total: int) -> str:
        """Return the counts, and the rate since the first call: what was done before is not fast.

        Args:
            done: things that are done.
            total: all things.
        """
        now = self._clock()
        if self._began is None:
            self._began = now, done
        seconds, made = now - self._began[0], done - self._began[1]
        counts = f"{done:,} of {total:,}"
        if made <= 0 or seconds <= 0:
            return counts
        rate = made / seconds
        return f"{counts}, {rate:,.0f} a second, about {_minutes((total - done) / rate)} left"


class TrialProgress:
    """The bar of the trials, with what is left and what was spent.

    Args:
        display: where it is shown.
        total: trials of the sweep, the control included.
        done: records that are there already.
        slots: trials at once.
    """

    def __init__(self, display: Display, total: int, done: int, slots: int) -> None:
        self.display = display
        self.total = total
        self.done = done
        self.slots = max(1, slots)
        self.spent_s = 0.0
        self._seconds: list[float] = []

    def start(self) -> None:
        """Show the bar."""
        self.display.events.write("start", slots=self.slots, total=self.total, done=self.done)
        self.display.stage("trials", self.done, self.total, self._note())

    def resize(self, slots: int) -> None:
        """Take another number of trials at once: nodes have come or gone."""
        self.slots = max(1, slots)
        self.display.events.write("slots", slots=slots)
        self.display.line(f"  {slots} trials at once from now on: the cluster has changed")

    def begin(self, index: int, trial_id: str) -> None:
        """Say that a trial was handed out."""
        self.display.events.write("begin", index=index, trial_id=trial_id)

    def lose(self, lost: Lost) -> None:
        """Say that a trial gave no record, and whether it is run again."""
        self.display.events.write(
            "lost",
            index=lost.index,
            trial_id=lost.trial_id,
            failure=lost.broken.failure,
            verdict=lost.verdict,
            reason=lost.broken.sentence,
        )
        then = "run again" if lost.verdict == "again" else "not run again in this sitting"
        self.display.line(f"  trial {lost.index:>3} is {then}: {escape(lost.broken.sentence)}")

    def finish(self, record: TrialRecord) -> None:
        """Count a finished trial and print its line."""
        seconds = sum(record.cost_s.values())
        self._seconds.append(seconds)
        self.spent_s += seconds
        self.done += 1
        worst = record.worst_attack
        self.display.events.write(
            "trial",
            index=record.index,
            trial_id=record.trial_id,
            status=record.status,
            clean_accuracy=record.clean_accuracy and record.clean_accuracy.overall.value,
            attack_accuracy=worst and worst.value,
            seconds=round(seconds, 1),
            **({"rows_at_once": record.rows_at_once} if record.rows_at_once else {}),
        )
        self.display.events.record(record.trial_id)
        self.display.line(describe(record))
        for what, rows in record.rows_at_once.items():
            self.display.line(f"            not enough memory: {what} with {rows} rows at once")
        if self.done < self.total:
            self.display.stage("trials", self.done, self.total, self._note())

    def _note(self) -> str:
        if not self._seconds:
            return f"{self.done} of {self.total}"
        left = (self.total - self.done) / self.slots * sum(self._seconds) / len(self._seconds)
        return (
            f"{self.done} of {self.total}, about {_minutes(left)} left, "
            f"{_minutes(self.spent_s)} of core time spent"
        )


_ALL_STEPS = "+".join(DcdSpec().steps)


def describe(record: TrialRecord) -> str:
    """Return one line on a trial: its setting, its clean accuracy, each attack's accuracy@1."""
    name = record.title or f"trial {record.index:>3}"
    name = "control" if record.index == 0 else name
    seconds = sum(record.cost_s.values())
    if record.status == "failed" or record.clean_accuracy is None:
        return f"  [red]{name:<9} failed[/red]  {record.error}"
    levers = ""
    if record.defense == "dcd":
        chosen = record.settings
        levers = (
            f"mislabel {chosen['mislabel_fraction']:.2f}/"
            f"{chosen['curvature_mislabel_fraction']:.2f}  "
            f"sigma {chosen['target_sigma']:.3f}/{chosen['surrogate_sigma']:.4f}"
        )
        if chosen.get("steps", _ALL_STEPS) != _ALL_STEPS:
            levers = f"only {chosen['steps']}"
    attacks = "  ".join(f"{a.name} {a.accuracy_at_1.value:.3f}" for a in record.attacks)
    return (
        f"  {name:<9} {levers:<42} accuracy {record.clean_accuracy.overall.value:.3f} "
        f"(targets {record.clean_accuracy.targets.value:.3f})  attacks@1 {attacks}  {seconds:.0f} s"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
