"""A comparison as Markdown: the paper's Table 1, every point of every curve, and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.comparison import Cell, Comparison, Row
from orchestrator.records import Estimate, Rate


def markdown(found: Comparison) -> str:
    """Return the page."""
    return "\n".join([*_table_1(found), "", *_curves(found), "", *_differences(found), ""])


def _table_1(found: Comparison) -> Iterator[str]:
    yield "# Table 1"
    yield ""
    yield (
        "Percent. ACC: clean accuracy, up. Att.ACC: share of reconstructions that an independent "
        "classifier gives to the target, down, with a 95 % interval over people. Each defence at "
        f"its best point: of those within {100 * found.max_accuracy_drop:g} points of the "
        "control's accuracy the one with the lowest worst attack, else the most accurate one. A "
        "row with several points is flattered by that choice."
    )
    yield ""
    yield from _table([row for row in found.rows if row.chosen])
    if any(row.serving != "none" for row in found.rows):
        yield ""
        yield (
            "Raw network: memguard and purification change the scores and labels that are served. "
            "A white-box attack has the network itself and never meets them: they do not protect "
            "against it."
        )
    yield ""
    yield "![attack accuracy against clean accuracy](curves.png)"


def _is_raw(row: Row, cell: Cell) -> bool:
    """Say whether an attack went past the output defence of its row."""
    return row.serving != "none" and cell.access == "white-box"


RAW = " (raw network)"


def _curves(found: Comparison) -> Iterator[str]:
    yield "## Every point"
    yield ""
    yield from _table(found.rows)
    yield ""
    yield "## Beyond the mean"
    yield ""
    yield (
        "Clean accuracy of protected classes, of the others, and of those that received wrong "
        "labels; lent people taken for the target, on the images that they lent (which DCD trains "
        "on) and on images never lent; how well the loss tells a protected person's training "
        "images (AUC, 0.5 is chance)."
    )
    yield ""
    accepted = "surrogate accepted, lent images | held-out images"
    yield f"| defence | targets | bystanders | receivers | {accepted} | membership AUC |"
    yield "|---|---|---|---|---|---|---|"
    for row in found.rows:
        accepts = (row.surrogate_accepts, row.held_out_accepts)
        rates = (row.targets, row.bystanders, row.receivers, *accepts)
        auc = "" if row.membership_auc is None else f"{row.membership_auc:.3f}"
        yield _line([row.title, *(_rate(rate) for rate in rates), auc])


def _table(rows: Sequence[Row]) -> Iterator[str]:
    pairs = list(dict.fromkeys((c.data, c.attack) for row in rows for c in row.cells))
    heads = [part for data, attack in pairs for part in (f"{data}, {attack}: ACC", "Att.ACC")]
    heads = ["defence", *heads, "inflation", "core-s", "guarantee", "runs (failed)"]
    yield _line(heads)
    yield "|---" * len(heads) + "|"
    for row in rows:
        cells = {(cell.data, cell.attack): cell for cell in row.cells}
        shown = []
        for pair in pairs:
            cell = cells.get(pair)
            shown += (
                ["", ""]
                if cell is None
                else [
                    _percent(cell.clean_accuracy.value),
                    _estimate(cell.attack_accuracy) + (RAW if _is_raw(row, cell) else ""),
                ]
            )
        runs = f"{row.runs} ({row.failed})"
        yield _line(
            [row.title, *shown, f"{row.inflation:g}", f"{row.core_s:.0f}", row.guarantee, runs]
        )


def _differences(found: Comparison) -> Iterator[str]:
    yield f"## Each point less {found.reference}"
    yield ""
    yield (
        "Points of attack accuracy, person by person (positive: leaks more), and of clean "
        "accuracy. Within noise: the 95 % interval over people holds 0; where nobody differs from "
        "anybody there is no interval, and six people must agree. Several comparisons are made at "
        "once, so that one in twenty would stand out by chance."
    )
    yield ""
    yield "| defence | data, attack | Att.ACC | within noise | ACC |"
    yield "|---|---|---|---|---|"
    for one in found.differences:
        yield _line(
            [
                one.title,
                f"{one.data}, {one.attack}",
                _estimate(one.attack_accuracy, sign="+"),
                "yes" if one.within_noise else "no",
                f"{100 * one.clean_accuracy:+.1f}",
            ]
        )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _rate(rate: Rate | None) -> str:
    return "" if rate is None else f"{100 * rate.value:.1f} (n={rate.n})"


def _estimate(found: Estimate, sign: str = "") -> str:
    low, high = (
        "?" if end is None else f"{100 * end:{sign}.1f}" for end in (found.low, found.high)
    )
    return f"{100 * found.value:{sign}.1f} [{low}, {high}]"
