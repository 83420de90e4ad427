"""What a run says of the parts that it lost: a person was forgotten, or it was cleaned."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tasks.errors import ForgottenError
from tasks.spec import Spec

FORGOTTEN = "forgotten.json"
"""In a run: that parts of it are gone, and why."""

CLEANED = "weights and pictures"
"""What `dcdctl clean --keep-records` takes; nobody was forgotten then."""

LEARNT, DRAWN = "classifiers that learnt from the person", "pictures drawn with their help"


class Forgotten(Spec):
    """What a run says of what it lost."""

    at: str
    receipt: str
    lost: str

    @property
    def sentence(self) -> str:
        """Why something is missing."""
        if self.lost == CLEANED:
            return (
                f"checkpoints, plans and pictures of this run were removed by `dcdctl clean` on "
                f"{self.at[:10]}; its records are kept"
            )
        what = (
            "its checkpoints, plans and pictures"
            if self.lost == LEARNT
            else "its pictures and reports"
        )
        return (
            f"a person in this run was forgotten on {self.at[:10]}: {what} were removed, the other "
            f"people's results are kept (receipt {self.receipt})"
        )


def read_forgotten(run: Path) -> Forgotten | None:
    """Return what was removed from a run because a person was forgotten; None where nothing was."""
    try:
        return Forgotten.model_validate_json((run / FORGOTTEN).read_bytes())
    except (OSError, ValidationError):
        return None


def require_whole(place: Path) -> None:
    """Refuse to work on what a run has lost.

    Args:
        place: the run's folder, or anything in it.

    Raises:
        ForgottenError: says when and why, and what to do.
    """
    for folder in (place, *place.parents):
        found = read_forgotten(folder)
        if found is not None and found.lost == CLEANED:
            raise ForgottenError(f"{folder.name}: {found.sentence}; start it over with --fresh")
        if found is not None and (found.lost == LEARNT or folder == place):
            raise ForgottenError(
                f"{folder.name}: {found.sentence}; a run without this person is a new one: take "
                "their pictures out of the data set and its settings, and start it with --fresh"
            )
