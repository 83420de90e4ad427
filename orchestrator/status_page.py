"""One screen on a run, and a table of all runs of a storage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.find_run import age_in_words, is_aside
from orchestrator.records import Rate
from orchestrator.run_spend import Spent
from orchestrator.run_status import RunStatus, StatusReader
from orchestrator.time_left import TimeLeft
from tasks.errors import StoreError

COLOURS = {"running": "green", "finished": "bold", "stopped": "red", "silent": "yellow"}
MARKS = {"done": "[green]done[/]", "running": "[yellow]running[/]", "to do": "[dim]to do[/]"}
SHOWN = 8
"""Trials under way and failures that are listed one by one."""


def status_screen(status: RunStatus) -> RenderableType:
    """Return a run as one screen."""
    head = Text.assemble(
        (f"{status.name} ", "bold"), f"{status.fingerprint}  ", (status.says, COLOURS[status.state])
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for stage in status.stages:
        if stage.name == "trials":
            grid.add_row("trials", _trials(status))
        else:
            note = f"  [dim]{stage.note}[/]" if stage.note else ""
            grid.add_row(stage.name, f"{MARKS[stage.state]}{note}")
    for name, rows in _sections(status):
        for i, row in enumerate(rows):
            grid.add_row("" if i else name, Text(row))
    return Group(head, "", grid)


def _trials(status: RunStatus) -> RenderableType:
    counts = status.trials
    ended = counts.done + counts.failed
    line = Table.grid(padding=(0, 1, 0, 0))
    words = [f"{ended} of {counts.total}"]
    words += [f"{counts.running} running"] if counts.running else []
    words += [f"[red]{counts.failed} failed[/]"] if counts.failed else []
    words += [f"{counts.to_do} to do"] if counts.to_do else []
    line.add_row(ProgressBar(counts.total, ended, width=24), ", ".join(words))
    return line


def _sections(status: RunStatus) -> Iterator[tuple[str, list[str]]]:
    rows = [
        f"{'trial ' + str(trial.index) if trial.index is not None else trial.trial_id}  "
        f"{trial.doing}, {duration(trial.seconds)}"
        for trial in status.running[:SHOWN]
    ]
    if len(status.running) > SHOWN:
        rows.append(f"and {len(status.running) - SHOWN} more")
    yield "running", rows
    yield "best so far", _best(status)
    yield "spent", _spent(status.spend)
    yield "gone", [status.forgotten] if status.forgotten else []
    yield "budget", [status.budget] if status.budget else []
    if status.state == "running":
        yield "left", [_left(status.time_left, status)]
    failures = [f"trial {one.index}: {one.error}" for one in status.failures[-SHOWN:]]
    if len(status.failures) > SHOWN:
        failures.insert(0, f"{len(status.failures) - SHOWN} before these")
    yield "failed", failures
    yield "unreadable", list(status.unreadable[:SHOWN])


def _spent(spend: Spent) -> list[str]:
    text = _hours(spend.hours, spend.unit)
    if spend.max_hours is not None:
        text += f" of {_hours(spend.max_hours, spend.unit)}"
    if spend.money is not None:
        digits = 2 if spend.money >= 1 else 4
        text += f", {spend.money:,.{digits}f} at {spend.hour_price:g} an hour"
    parts = (
        ("for all trials together", spend.shared_hours),
        ("in failed trials", spend.failed_hours),
        ("in lost ones", spend.lost_hours),
    )
    named = [f"{_hours(hours, spend.unit)} {where}" for where, hours in parts if hours]
    return [text, *([f"of it {', '.join(named)}"] if named else [])]


def _best(status: RunStatus) -> list[str]:
    best = status.best
    if best is None:
        return ["nothing to compare yet: the control and a trial must have ended"]
    name = best.title or f"trial {best.index}"
    meets = "meets both goals" if best.recommended else "nearest to the goals, which it misses"
    rows = [
        f"{name}, {meets}",
        f"accuracy {_rate(best.clean_accuracy)}, worst attack {_rate(best.worst_attack)}",
    ]
    if best.control_accuracy is not None and best.control_attack is not None:
        rows.append(
            f"control: {_rate(best.control_accuracy)}, worst attack {_rate(best.control_attack)}"
        )
    return rows


def _left(left: TimeLeft | None, status: RunStatus) -> str:
    if left is None:
        return "not known before a trial has ended"
    if not left.high:
        return "no trial; what follows them is under way"
    more = " for the trials" if any(s.name == "adaptive attacks" for s in status.stages) else ""
    return (
        f"about {duration(left.seconds)}{more} ({duration(left.low)} to {duration(left.high)}, "
        f"90 % interval, {status.slots} at once)"
    )


def runs_table(runs: Sequence[Path], hour_price: float | None) -> Table:
    """Return all runs of a storage, a line each."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("run", "experiment", "state", "trials", "failed", "worst attack", "accuracy"):
        table.add_column(name, justify="right" if name in ("trials", "failed") else "left")
    table.add_column("hours", justify="right")
    table.add_column("written")
    for run in runs:
        try:
            status = StatusReader(run, hour_price).read()
        except StoreError:
            table.add_row(run.name, "[red]cannot be read[/]")
            continue
        counts, best = status.trials, status.best
        table.add_row(
            run.name,
            status.name,
            "set aside" if is_aside(run) else f"[{COLOURS[status.state]}]{status.state}[/]",
            f"{counts.done + counts.failed}/{counts.total}",
            str(counts.failed or ""),
            _rate(best.worst_attack) if best else "",
            f"{best.clean_accuracy.value:.3f}" if best else "",
            f"{status.spend.hours:.2f}",
            age_in_words(time.time() - status.last_written),
        )
    return table


def watch(
    console: Console,
    draw: Callable[[], tuple[RenderableType, bool]],
    every_s: float,
) -> None:
    """Draw again and again until it says that there is no more to come, or Ctrl-C.

    Args:
        console: where; without a terminal, screens follow one another.
        draw: returns the screen, and whether the run goes on.
        every_s: seconds between two screens.
    """
    screen, goes_on = draw()
    live = Live(screen, console=console, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        while True:
            if live is None:
                console.print(screen)
            else:
                live.update(screen, refresh=True)
            if not goes_on:
                return
            time.sleep(every_s)
            screen, goes_on = draw()


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _rate(rate: Rate) -> str:
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] n={rate.n}"


def _hours(hours: float, unit: str) -> str:
    return f"{hours:.2f} {unit} hours" if hours >= 0.1 else f"{60 * hours:.1f} {unit} minutes"
