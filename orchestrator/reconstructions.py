"""What the attacks drew: the pictures of a run, as the report and the tracking show them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.figures import GridColumn
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
class Grid:
    """The reconstruction grid: a row for each target class, named by its pseudonym."""

    pseudonyms: Sequence[str]
    columns: Sequence[GridColumn]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Each attack with the number of its columns; "" for the examples."""
        return [(attack, len(list(g))) for attack, g in groupby(c.attack for c in self.columns)]


def reconstruction_grid(
    run_dir: Path, trials: Mapping[str, TrialRecord], rows: int = 8
) -> Grid | None:
    """Return the grid of the paper's Figure 3: target, surrogate, and each attack's first choice.

    The first choice is the attack's own; the evaluation classifier had no say in it. Where there
    are more target classes than rows, those stand first that the attacks recovered most often from
    the last of `trials`: the grid shows the defence at its worst.

    Args:
        run_dir: the run's folder.
        trials: heading -> trial, in the order of the columns.
        rows: target classes at the most.

    Returns:
        None where the examples are missing.
    """
    examples = _load_arrays(run_dir / "examples.npz")
    if not {"target", "surrogate", "pseudonym"} <= examples.keys():
        return None
    names = [str(name) for name in examples["pseudonym"]]
    worst = _hits(list(trials.values())[-1]) if trials else {}
    shown = sorted(range(len(names)), key=lambda i: -worst.get(names[i], 0.0))[:rows]
    blank = [""] * len(shown)
    columns = [
        GridColumn(heading, examples[heading][shown], blank) for heading in ("target", "surrogate")
    ]
    drawn = {
        heading: load_reconstructions(run_dir / "trials" / record.trial_id)
        for heading, record in trials.items()
    }
    attacks = dict.fromkeys(name for attacks in drawn.values() for name in attacks)
    for attack in attacks:
        for heading, by_attack in drawn.items():
            found = by_attack.get(attack)
            if found is not None and len(found.pictures) == len(names):
                words = [VERDICTS[found.verdicts[i, 0]] for i in shown]
                first = columns[-1].attack != attack
                columns.append(GridColumn(heading, found.pictures[shown, 0], words, attack, first))
    return Grid([names[i] for i in shown], columns)


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
