"""Did you mean: the nearest known name, for error sentences."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, listed: int = 8) -> str:
    """Return the end of an error sentence: the nearest name, else some of those that exist."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    shown = ", ".join(names[:listed])
    return f"; there are {len(names)}: {shown}{', ...' if len(names) > listed else ''}"
