"""How numbers, settings, commands and pictures are written on the report's page."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np

from orchestrator.figures import picture_png
from orchestrator.records import Rate


def percent(share: float) -> str:
    """Return a fraction in percent with one decimal, 0.031 -> "3.1 %"; none for 0 and 1."""
    return f"{100 * share:.{int(0 < share < 1)}f}\u202f%"


def interval(rate: Rate) -> str:
    """Return the 95 % interval of a rate in percent, "0.9–10.7"."""
    low, high = (f"{100 * end:.{int(0 < end < 1)}f}" for end in (rate.low, rate.high))
    return f"{low}–{high}"


def seconds(value: float) -> str:
    """Return a duration in the unit that reads best."""
    if value < 90:
        return f"{value:.1f}\u202fs" if value < 10 else f"{value:.0f}\u202fs"
    return f"{value / 60:.1f}\u202fmin" if value < 5400 else f"{value / 3600:.1f}\u202fh"


def number(value: object) -> str:
    """Return a setting as people read it: three significant digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.3g}"


def rate_of(k: int, n: int) -> Rate:
    """Return the rate of a table's cell, which keeps counts alone."""
    return Rate.of(k, n)


def picture_uri(picture: np.ndarray[Any, np.dtype[np.uint8]], side: int = 128) -> str:
    """Return a picture as a data URI, at most `side` pixels a side."""
    return "data:image/png;base64," + base64.b64encode(picture_png(picture, side)).decode()


def money(value: float) -> str:
    """Return an amount: two decimals, or of a small one two significant digits."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


def unbroken(text: str) -> str:
    """Return a sentence whose percent signs stay with their numbers at the end of a line."""
    return text.replace(" %", "\u202f%")


def command(line: str) -> str:
    """Return a command line with one option a line, as a shell reads it."""
    return re.sub(r" (?=--)", " \\\\\n    ", line)


def words(name: str) -> str:
    """Return a setting's name as words, "target_sigma" -> "target sigma"."""
    return str(name).replace("_", " ")
