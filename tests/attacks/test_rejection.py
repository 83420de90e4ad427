"""Successive rejection: who leaves, what is saved, and that survivors are not touched by it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.rejection import candidate_steps, stretches
from attacks.spec import PpaSpec
from tasks.errors import SpecError
from tests.attacks.toy import SEARCH, ToyWorld

rungs = st.lists(st.integers(1, 60), unique=True, max_size=5).map(sorted)


@given(rungs, st.integers(1, 50), st.integers(1, 40), st.integers(1, 10))
def test_stretches_cover_all_steps_once_and_never_fall_below_what_is_kept(
    at: list[int], steps: int, candidates: int, keep: int
) -> None:
    plan = stretches(at, steps, candidates, keep)
    assert [step for stretch, _ in plan for step in stretch] == list(range(steps))
    counts = [count for _, count in plan]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == candidates
    assert counts[-1] >= min(keep, candidates)


def test_the_defaults_of_screening_halve_the_steps() -> None:
    spec = PpaSpec(rungs=(5, 10))
    assert candidate_steps(spec) == 5 * 20 + 5 * 10 + 30 * 8
    assert candidate_steps(PpaSpec()) == 800


def test_survivors_end_where_they_would_have_ended() -> None:
    toy = ToyWorld.make()
    full = toy.run_spec(PpaSpec(**SEARCH | {"candidates": 9, "keep": 9}))
    fewer = toy.run_spec(PpaSpec(**SEARCH | {"candidates": 9, "keep": 2}, rungs=(3, 6)))
    for target in range(len(full.latents)):
        for latent in fewer.latents[target]:
            gaps = (full.latents[target] - latent).abs().amax(dim=1)
            assert float(gaps.min()) < 1e-5


def test_rungs_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rungs=\[6, 3\] do not ascend"):
        PpaSpec(rungs=(6, 3))
    from orchestrator.config import load_spec

    with pytest.raises(SpecError, match="do not ascend"):
        load_spec(None, ["attacks=[{name: ppa, rungs: [6, 3]}]"])


def test_the_screened_search_still_finds_the_targets() -> None:
    toy = ToyWorld.make()
    result = toy.run_spec(PpaSpec(**SEARCH | {"candidates": 9}, rungs=(3, 6)))
    assert result.images.shape[1] == 3
    assert torch.all(result.confidence.diff(dim=1) <= 1e-6)
    assert toy.hit_rate(result) >= 0.75
