"""The sentence on the landscape: it says yes only where both intervals do."""

from __future__ import annotations

import pytest

from orchestrator.landscape import Around, verdict_of
from orchestrator.records import Estimate

FLATTER, STEEPER = "trace: target above surrogate", "trace at target: trial above control"
ALONG = "trace along w: target above surrogate"
YES, OPEN, NO = (1.0, 3.0), (-1.0, 5.0), (-3.0, -1.0)


def estimate(low: float, high: float) -> Estimate:
    return Estimate(
        value=(low + high) / 2, low=low, high=high, n=64, clusters=8, method="cluster-bootstrap"
    )


def sentence(flatter: tuple[float, float], steeper: tuple[float, float]) -> str:
    model = {
        kind: Around(loss=estimate(0, 1), pixel_trace=estimate(i, i + 2), along=(0.5,))
        for i, kind in enumerate(("target", "target_trained", "surrogate"))
    }
    differences = {FLATTER: estimate(*flatter), STEEPER: estimate(*steeper), ALONG: estimate(*OPEN)}
    return verdict_of(model, model, differences)


@pytest.mark.parametrize(
    ("flatter", "steeper", "start", "doubts"),
    [
        (YES, YES, "In pixels the levers did what the theory says", 1),
        (YES, OPEN, "It is not settled whether in pixels", 2),
        (OPEN, OPEN, "It is not settled whether in pixels", 3),
        (NO, YES, "In pixels the levers did not do all", 1),
        (OPEN, NO, "In pixels the levers did not do all", 2),
    ],
)
def test_the_sentence_claims_no_more_than_the_intervals(
    flatter: tuple[float, float], steeper: tuple[float, float], start: str, doubts: int
) -> None:
    said = sentence(flatter, steeper)
    assert said.startswith(start)
    assert said.count("not settled:") == doubts  # the latents' interval holds 0 in all of them
    assert ("(the opposite of the theory)" in said) == (NO in (flatter, steeper))
    assert said.count(". ") == 0
