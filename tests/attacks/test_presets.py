"""Published settings: each is valid, names its source, and gives way to what a file says."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from attacks.presets import ADAPTIVE, PRESETS, expand
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from tasks.errors import SpecError

SPEC: TypeAdapter[AttackSpec] = TypeAdapter(AttackSpec)


@pytest.mark.parametrize("name", PRESETS)
def test_it_is_a_valid_setting_with_a_source(name: str) -> None:
    spec = SPEC.validate_python(expand(name))
    assert spec.name in ATTACKS
    assert spec.preset == name
    assert PRESETS[name].source


def test_what_a_file_says_wins_over_the_preset() -> None:
    spec = SPEC.validate_python(expand({"preset": "ppa/celeba-ffhq", "keep": 3}))
    assert spec == SPEC.validate_python(expand("ppa/celeba-ffhq")).model_copy(update={"keep": 3})


@pytest.mark.parametrize("name", [*ATTACKS, *(f"adaptive-{s}" for s in ADAPTIVE)])
def test_a_bare_name_is_the_default(name: str) -> None:
    spec = SPEC.validate_python(expand(name))
    assert spec.label == ("adaptive-modes" if name == "adaptive" else name)
    assert expand(spec.model_dump()) == spec.model_dump()


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="preset 'ppa/celeba-fhq' is unknown; did you mean"):
        expand("ppa/celeba-fhq")


def test_the_papers_budgets_are_as_published() -> None:
    ppa = SPEC.validate_python(expand("ppa/celeba-ffhq")).model_dump()
    published = {"pool": 5000, "candidates": 200, "steps": 70, "learning_rate": 0.005, "keep": 50}
    assert {key: ppa[key] for key in published} == published
    mirror = SPEC.validate_python(expand("mirror-b/vggface2")).model_dump()
    published = {"pool": 100_000, "population": 1000, "generations": 100, "stop_confidence": 0.95}
    assert {key: mirror[key] for key in published} == published
