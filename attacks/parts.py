"""The batches of an attack: how many images at once, and who computes them.

Candidates are independent of each other, so an attack works on batches of them, one after the
other. Rounding depends on a batch's size and not on who computes it: a batch may go to another
process, and what is found is the same to the last bit. With fewer rows at once, where memory is
short, it is the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from tasks.classifiers import Classifier

BATCH = 128
"""Images at once: on a CPU the speed is flat from 12 to 96, on a GPU this fills small models."""

Shared = TypeVar("Shared")
Part = TypeVar("Part")
Found = TypeVar("Found")


class Spread(Protocol):
    """Computes batches somewhere, and returns what was found in their order."""

    def __call__(
        self,
        work: Callable[[Any, Any, Any], Any],
        classifier: Classifier,
        shared: Any,
        parts: Sequence[Any],
    ) -> list[Any]:
        """Return `work(classifier, shared, part)` of each part."""


_rows: ContextVar[int] = ContextVar("rows at once", default=BATCH)
_spread: ContextVar[Spread | None] = ContextVar("who computes batches", default=None)


@contextmanager
def at_once(rows: int) -> Iterator[None]:
    """Have attacks work on so many images at once inside."""
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


@contextmanager
def spread_by(spread: Spread | None) -> Iterator[None]:
    """Have batches computed by somebody else inside; None computes them here."""
    token = _spread.set(spread)
    try:
        yield
    finally:
        _spread.reset(token)


def slices(count: int) -> list[slice]:
    """Return the batches of so many rows."""
    rows = _rows.get()
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]


def each(
    work: Callable[[Classifier, Shared, Part], Found],
    classifier: Classifier,
    shared: Shared,
    parts: Sequence[Part],
) -> list[Found]:
    """Return `work(classifier, shared, part)` of each batch, in order.

    Args:
        work: a function of a module, whose answer is all that it leaves behind; what it shows the
            classifier is counted wherever it runs.
        classifier: the model under attack.
        shared: what all batches need.
        parts: the batches.
    """
    spread = _spread.get()
    if spread is None or len(parts) < 2:
        return [work(classifier, shared, part) for part in parts]
    return spread(work, classifier, shared, parts)
