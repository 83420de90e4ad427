"""Timings that can be compared: contestants take turns, and what is reported is their ratio."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def alternate(
    contestants: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Run contestants in turn, each first as often as last; return seconds of each by round.

    The first round warms caches and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for turn in range(rounds + 1):
        for name in order if turn % 2 else reversed(order):
            started = time.perf_counter()
            contestants[name]()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: list[float], form: str = ".2f") -> str:
    """Return median and quartiles, as in 3.10 [3.02, 3.17]."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    """Return how many times faster, round by round."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def circumstances() -> str:
    """Return when and under what load a figure was taken."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    load = " ".join(f"{x:.2f}" for x in os.getloadavg())
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return f"{when}, {os.cpu_count()} x {model}, load {load}"
