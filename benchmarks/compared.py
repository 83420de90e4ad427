"""Comparisons of one data set as the short tables of docs/results.md.

    for seed in 0 1 2; do tar xJf benchmarks/records-builtin-faces-$seed.tar.xz; done
    python -m benchmarks.compared runs/*

`dcdctl compare runs/*` has the same figures with every interval, and more of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from orchestrator.comparison import Cell, Comparison, FinishedRun, Row, compare
from orchestrator.finished_run import load_run


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, one or more a seed")
    loaded = [load_run(path) for path in parser.parse_args().runs]
    found = compare([FinishedRun(run.folder.name, run.spec, run.records) for run in loaded])
    print("\n".join([*chosen_table(found), "", *points_table(found), "", *side_table(found)]))


def chosen_table(found: Comparison) -> Iterator[str]:
    """Yield each defence at its best point, with intervals over people."""
    yield from _head(found, "inflation", "core-s")
    for row in found.rows:
        if row.chosen:
            rates = [f"{_rate(cell)}{_interval(cell)}{_raw(row, cell)}" for cell in row.cells]
            shown = [row.title, _accuracy(row), *rates, f"{row.inflation:g}", f"{row.core_s:.0f}"]
            yield _line(*shown)


def points_table(found: Comparison) -> Iterator[str]:
    """Yield every point of every curve, without intervals."""
    yield from _head(found)
    for row in found.rows:
        yield _line(row.title, _accuracy(row), *(_rate(c) + _raw(row, c) for c in row.cells))


def side_table(found: Comparison) -> Iterator[str]:
    """Yield what else a defence does, at its best point."""
    heads = ("targets", "others", "receivers", "surrogate accepted, lent", "never lent", "AUC")
    yield _line("defence", *heads)
    yield "|---" * (1 + len(heads)) + "|"
    for row in found.rows:
        if row.chosen:
            own, lent = (row.targets, row.bystanders, row.receivers), (row.surrogate_accepts,)
            rates = (*own, *lent, row.held_out_accepts)
            shown = ["" if rate is None else f"{100 * rate.value:.1f}" for rate in rates]
            auc = "" if row.membership_auc is None else f"{row.membership_auc:.3f}"
            yield _line(row.title, *shown, auc)


def _head(found: Comparison, *more: str) -> Iterator[str]:
    attacks = [cell.attack for cell in found.rows[0].cells]
    yield _line("defence", "ACC", *attacks, *more)
    yield "|---" * (2 + len(attacks) + len(more)) + "|"


def _accuracy(row: Row) -> str:
    return f"{100 * row.cells[0].clean_accuracy.value:.2f}"


def _rate(cell: Cell) -> str:
    return f"{100 * cell.attack_accuracy.value:.1f}"


def _interval(cell: Cell) -> str:
    seen = cell.attack_accuracy
    if seen.low is None or seen.high is None:
        return ""
    return f" [{100 * seen.low:.1f}, {100 * seen.high:.1f}]"


def _raw(row: Row, cell: Cell) -> str:
    """Mark an attack that went past the output defence, to the network itself."""
    return "*" if row.serving != "none" and cell.access == "white-box" else ""


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
