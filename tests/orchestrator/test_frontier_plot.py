"""Labels of the frontier plot."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import matplotlib.pyplot as plt

from orchestrator.frontier_plot import PlottedTrial, draw_frontier
from orchestrator.records import Rate
from orchestrator.spec import GoalSpec


def trial(
    index: int, clean: int, attack: int, role: Literal["control", "rival", "other"]
) -> PlottedTrial:
    front = role == "other"
    return PlottedTrial(
        index, Rate.of(clean, 400), Rate.of(attack, 64), role, front, knee=False, tooltip=""
    )


def labels(trials: list[PlottedTrial]) -> dict[str, tuple[float, float, float, float]]:
    figure = plt.figure(figsize=(8, 5))
    axes = figure.add_axes((0.1, 0.1, 0.85, 0.85))
    draw_frontier(axes, trials, GoalSpec())
    figure.canvas.draw()
    found = {t.get_text(): t.get_window_extent().extents for t in axes.texts}
    plt.close(figure)
    return {text: tuple(box) for text, box in found.items()}


def test_each_of_a_few_trials_has_its_number() -> None:
    few = [trial(0, 396, 60, "control"), trial(1, 100, 30, "rival"), trial(2, 380, 3, "other")]
    assert {"control", "1", "2"} <= set(labels(few))


def test_in_a_crowd_labels_cover_one_another_little_and_those_that_matter_stay() -> None:
    crowd = [trial(n, 388 + n % 5, 54 + n % 4, "rival") for n in range(1, 26)]
    crowd.append(trial(27, 36, 10, "rival"))  # far off: the others stand close together
    found = labels([trial(0, 396, 60, "control"), *crowd, trial(26, 390, 3, "other")])
    assert {"control", "26", "27"} <= set(found)
    assert len(found) < len(crowd)
    for one, other in combinations(found.values(), 2):
        width = min(one[2], other[2]) - max(one[0], other[0])
        height = min(one[3], other[3]) - max(one[1], other[1])
        smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
        assert max(width, 0) * max(height, 0) <= 0.5 * smaller
