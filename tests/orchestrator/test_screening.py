"""Screening: clear targets leave early, unclear ones stay, and the full budget is one flag away."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from attacks.spec import MirrorBSpec, PpaSpec
from orchestrator.config import load_spec
from orchestrator.screening import ScreenRecord, lighter, screen
from orchestrator.spec import ScreeningSpec
from orchestrator.trial import World
from tasks.classifiers import TorchClassifier
from tasks.errors import SpecError
from tasks.types import ClassId, IdentityId, TargetClass
from tests.attacks.toy import SEARCH, SIZE, NearestColour, ToyWorld

SPEC = ScreeningSpec(blocks=3, pool=64, rungs=(4, 8))
PPA = PpaSpec(**SEARCH)
TOY = ToyWorld.make()
PEOPLE = tuple(TargetClass(ClassId(i), IdentityId(f"p{i}"), ()) for i in (2, 0, 3))
WORLD = World(
    rows=pa.table({}),
    images=torch.zeros(0, SIZE, SIZE, 3, dtype=torch.uint8).numpy(),
    targets=PEOPLE,
    pseudonyms=("id-2", "id-0", "id-3"),
    num_classes=4,
    seed=0,
    digest="",
)


class Shuffled(torch.nn.Module):
    """A judge who calls everybody by the next one's name, but for the classes that it knows."""

    def __init__(self, right: tuple[int, ...]) -> None:
        super().__init__()
        self.module = NearestColour()
        self.order = [i if i in right else (i + 1) % 4 for i in range(4)]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return torch.stack([logits[:, i] - 1e-3 * i for i in self.order], dim=1)


def screened(judge: torch.nn.Module, *, whole: bool = False) -> ScreenRecord:
    attacked = TorchClassifier(TOY.module, 4, SIZE)
    return screen(
        PPA, attacked, TOY.prior, WORLD, TorchClassifier(judge, 4, SIZE), SPEC, whole=whole
    )


def test_whoever_is_clearly_exposed_leaves_after_the_first_block() -> None:
    found = screened(NearestColour())
    assert [t.pseudonym for t in found.targets] == list(WORLD.pseudonyms)
    assert found.count("exposed") == 3
    assert found.blocks == 1
    assert all(t.blocks == 1 and t.n == PPA.keep for t in found.targets)
    assert all(t.low <= t.hits / t.n <= t.high for t in found.targets)


def test_the_full_budget_runs_all_blocks_with_the_attack_as_it_is() -> None:
    found, full = screened(NearestColour()), screened(NearestColour(), whole=True)
    assert full.blocks == SPEC.blocks
    assert all(t.n == SPEC.blocks * PPA.keep for t in full.targets)
    assert full.queries > SPEC.blocks * found.queries
    assert full.count("exposed") == 3


def test_whoever_is_never_hit_is_protected_and_the_others_do_not_wait() -> None:
    found = screened(Shuffled(right=(0,)))
    by_name = {t.pseudonym: t for t in found.targets}
    assert by_name["id-0"].verdict == "exposed"
    assert by_name["id-0"].blocks == 1
    missed = by_name["id-2"]
    assert missed.verdict == "protected"
    assert missed.hits == 0
    assert missed.n == 6  # three of the first block say too little, six are enough
    assert missed.blocks == 2


def test_a_target_does_not_depend_on_who_has_left() -> None:
    both = {t.pseudonym: t for t in screened(Shuffled(right=(0,))).targets}
    alone = {t.pseudonym: t for t in screened(Shuffled(right=())).targets}
    assert both["id-2"] == alone["id-2"]


def test_a_lighter_attack_has_a_smaller_pool_and_rungs_where_its_search_has_them() -> None:
    spec = ScreeningSpec(pool=50, rungs=(5, 100))
    light = lighter(PpaSpec(), spec)
    assert isinstance(light, PpaSpec)
    assert (light.pool, light.rungs, light.steps) == (50, (5,), 40)
    assert lighter(MirrorBSpec(pool=30), spec).pool == 30  # type: ignore[union-attr]


def test_rates_that_make_no_test_are_refused() -> None:
    with pytest.raises(SpecError, match=r"protected_rate=0.5 is not below exposed_rate=0.5"):
        load_spec(None, ["screening.protected_rate=0.5"])
