"""Evaluation: who is recognised, whom a reconstruction shows, how near it comes, how sure we are.

`judge` holds clean accuracy and verdicts; `panel` adds the second judge and the paper's convention;
`features`, `distances`, `frechet` and `neighbours` compare sets of images; `knowledge` asks what a
student learns from reconstructions; `intervals` and `sampling` say how sure the numbers are.
"""

from tasks.evaluation.judge import (
    OTHER,
    SURROGATE,
    TARGET,
    Hits,
    Verdicts,
    clean_hits,
    from_unit,
    judge,
    predict,
    to_unit,
)

__all__ = [
    "OTHER",
    "SURROGATE",
    "TARGET",
    "Hits",
    "Verdicts",
    "clean_hits",
    "from_unit",
    "judge",
    "predict",
    "to_unit",
]
