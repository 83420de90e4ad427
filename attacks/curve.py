"""How an attack got on: the mean over its candidates of what it improves, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Curve:
    """Collects sums on the device where they are made; nothing waits for a step's number."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    def add(self, step: int, values: Tensor) -> None:
        """Add one value a candidate, (n,), to a step; batches of one step are averaged."""
        total = values.detach().sum()
        self._sums[step] = self._sums[step] + total if step in self._sums else total
        self._counts[step] = self._counts.get(step, 0) + len(values)

    def join(self, other: Curve) -> None:
        """Add what another one collected, as if it had been added here."""
        for step, total in other._sums.items():
            self._sums[step] = self._sums[step] + total if step in self._sums else total
            self._counts[step] = self._counts.get(step, 0) + other._counts[step]

    def points(self) -> tuple[float, ...]:
        """Return the mean after each step that was taken, in order."""
        return tuple(float(self._sums[step]) / self._counts[step] for step in sorted(self._sums))


def join_curves(curves: Sequence[tuple[float, ...]], weights: Sequence[int]) -> tuple[float, ...]:
    """Return the mean of the curves of several parts of the targets.

    A part that stopped early stays where it ended.

    Args:
        curves: one a part; parts without a curve are left out.
        weights: targets of each part.
    """
    parts = [(curve, weight) for curve, weight in zip(curves, weights, strict=True) if curve]
    length = max((len(curve) for curve, _ in parts), default=0)
    total = sum(weight for _, weight in parts)
    return tuple(
        sum(weight * curve[min(step, len(curve) - 1)] for curve, weight in parts) / total
        for step in range(length)
    )
