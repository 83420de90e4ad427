"""What the attacks drew: the pictures of a run, as the report and the tracking show them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.figures import GridRow
from orchestrator.records import TrialRecord
from tasks.types import Image8

VERDICTS = ("other", "target", "surrogate")
"""What the evaluation classifier says of a picture, by the number that stands in the file."""


@dataclass(frozen=True)
class Reconstructions:
    """One attack's pictures of one trial, best first.

    Attributes:
        pictures: uint8, shape (T, n, H, W, 3).
        verdicts: int8, shape (T, n), indices into `VERDICTS`.
    """

    pictures: Image8
    verdicts: npt.NDArray[np.int8]


def load_reconstructions(trial_dir: Path) -> dict[str, Reconstructions]:
    """Return a trial's reconstructions by attack; empty where there are none that can be read."""
    arrays = _load_arrays(trial_dir / "reconstructions.npz")
    return {
        name: Reconstructions(arrays[name], arrays[f"{name}/verdict"])
        for name in arrays
        if f"{name}/verdict" in arrays
    }


@dataclass(frozen=True)
class Shown:
    """A trial of the grid and where its pictures are."""

    record: TrialRecord
    folder: Path


@dataclass(frozen=True)
class Grid:
    """The reconstruction grid: a column for each target class, named by its pseudonym.

    Attributes:
        pseudonyms: of the columns.
        rows: examples first, then each attack's, trial by trial.
        worst: the attack that recovers most without a defence.
        note: whom the pictures show.
    """

    pseudonyms: Sequence[str]
    rows: Sequence[GridRow]
    worst: str
    note: str

    @property
    def groups(self) -> list[tuple[str, list[GridRow]]]:
        """Each attack with its rows; "" for the examples."""
        return [(attack, list(rows)) for attack, rows in groupby(self.rows, lambda r: r.attack)]

    @property
    def strongest(self) -> list[GridRow]:
        """The examples and the rows of the strongest attack."""
        return [row for row in self.rows if row.attack in ("", self.worst)]


def reconstruction_grid(
    run_dir: Path, trials: Mapping[str, Shown], most: int = 8, mark: bool = False
) -> Grid | None:
    """Return the grid of the paper's Figure 3: target, surrogate, and each attack's first choice.

    The first choice is the attack's own; the evaluation classifier had no say in it. Where there
    are more target classes than columns, those stand first that the attacks recovered most often
    from the last of `trials`: the grid shows the defence at its worst.

    Args:
        run_dir: the folder of the run that the examples are from.
        trials: heading -> trial, in the order of the rows.
        most: target classes at the most.
        mark: write across every picture that it is personal data.

    Returns:
        None where the examples are missing.
    """
    examples = _load_arrays(run_dir / "examples.npz")
    if not {"target", "surrogate", "pseudonym"} <= examples.keys():
        return None
    names = [str(name) for name in examples["pseudonym"]]
    worst = _hits(list(trials.values())[-1].record) if trials else {}
    shown = sorted(range(len(names)), key=lambda i: -worst.get(names[i], 0.0))[:most]
    blank = [""] * len(shown)
    rows = [
        GridRow(heading, examples[key][shown], blank)
        for heading, key in (("real", "target"), ("surrogate", "surrogate"))
    ]
    drawn = {heading: load_reconstructions(trial.folder) for heading, trial in trials.items()}
    attacks = dict.fromkeys(name for attacks in drawn.values() for name in attacks)
    for attack in attacks:
        for heading, by_attack in drawn.items():
            found = by_attack.get(attack)
            if found is not None and len(found.pictures) == len(names):
                words = [VERDICTS[found.verdicts[i, 0]] for i in shown]
                first = rows[-1].attack != attack
                rows.append(GridRow(heading, found.pictures[shown, 0], words, attack, first))
    if mark:
        rows = [replace(row, pictures=watermark(row.pictures)) for row in rows]
        note = "These may be pictures of real people, shown on request: handle them as theirs."
    else:
        note = "All faces are drawn by a program: nobody here is real."
    return Grid([names[i] for i in shown], rows, _strongest(trials, list(attacks)), note)


def watermark(pictures: Image8, side: int = 96) -> Image8:
    """Return pictures (T, H, W, 3) with "personal data" written across, at least `side` high."""
    from PIL import Image, ImageDraw

    marked = []
    for picture in pictures:
        image = Image.fromarray(picture)
        if image.height < side:
            image = image.resize((round(side * image.width / image.height), side))
        ink = ImageDraw.Draw(image)
        for y in range(8, image.height, 30):
            for shift, colour in ((1, (0, 0, 0)), (0, (255, 255, 255))):
                ink.text((3 + shift + y // 6, y + shift), "personal data", fill=colour)
        marked.append(np.asarray(image))
    return np.stack(marked)


def _strongest(trials: Mapping[str, Shown], attacks: Sequence[str]) -> str:
    """Return the attack with the highest accuracy against the first trial, the control."""
    first = next(iter(trials.values()), None)
    rates = {a.name: a.accuracy_at_1.value for a in (first.record.attacks if first else ())}
    return max(attacks, key=lambda name: rates.get(name, 0.0), default="")


def _hits(record: TrialRecord) -> dict[str, float]:
    """Highest accuracy@1 over the attacks, by pseudonym."""
    hits: dict[str, float] = {}
    for attack in record.attacks:
        for score in attack.per_target:
            best = max(hits.get(score.pseudonym, 0.0), score.accuracy_at_1.value)
            hits[score.pseudonym] = best
    return hits


def _load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Pictures are an illustration: a report without them is better than no report."""
    try:
        # np.load leaves a file open that it opened itself and cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}
