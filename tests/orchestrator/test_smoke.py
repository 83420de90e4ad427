"""The tiny variant: smaller everywhere, and nothing left out."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config import load_spec
from orchestrator.search import planned_trials
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec


def test_nothing_grows_and_nothing_is_left_out() -> None:
    spec = ExperimentSpec()
    tiny = smoke(spec)
    assert [attack.name for attack in tiny.attacks] == [attack.name for attack in spec.attacks]
    kept = spec.model_dump(exclude={"name"})
    kept["adaptive_attacks"] = kept["adaptive_attacks"][:2]
    assert_not_larger(tiny.model_dump(exclude={"name"}), kept)


def assert_not_larger(small: Any, large: Any) -> None:
    if isinstance(large, dict):
        assert small.keys() == large.keys()
        for key in large:
            assert_not_larger(small[key], large[key])
    elif isinstance(large, tuple | list):
        for one, other in zip(small, large, strict=True):
            assert_not_larger(one, other)
    elif isinstance(large, int | float):
        assert small <= large
    else:
        assert small == large


def test_the_images_to_make_are_few() -> None:
    data = smoke(ExperimentSpec()).data
    assert data.kind == "builtin"
    assert data.identities * (data.train_images + data.test_images) <= 200
    assert data.surrogate_identities * data.surrogate_images <= 200
    assert data.public_identities * data.public_images <= 300


def test_a_smaller_experiment_stays_as_it_is() -> None:
    spec = load_spec(None, ["training.epochs=1", "attacks.ppa.pool=20", "sweep.trials=1"])
    tiny = smoke(spec)
    assert (tiny.training.epochs, tiny.sweep.trials) == (1, 1)
    assert tiny.attacks[0].model_dump()["pool"] == 20


@pytest.mark.parametrize("limit", ["null", "50", "5"])
def test_a_folder_keeps_its_classes_and_takes_few_images_of_each(limit: str) -> None:
    spec = load_spec(
        None,
        ["data={kind: folder, root: x, private: [a, b, c], surrogates: [d, e], public: [f]}"]
        + ["protect.targets=[a, b, c]", f"data.max_images_per_class={limit}"],
    )
    tiny = smoke(spec)
    assert tiny.data.kind == "folder"
    assert tiny.data.root == "x"
    assert tiny.data.private == ("a", "b", "c")
    assert tiny.data.max_images_per_class == (5 if limit == "5" else 20)
    assert tiny.protect.targets == ("a", "b")


def test_identities_that_are_named_do_not_go_missing() -> None:
    spec = load_spec(None, ["protect.targets=[p39]", "protect.surrogates={p39: s99}"])
    tiny = smoke(spec)
    assert tiny.data.model_dump()["identities"] == 40
    assert tiny.data.model_dump()["surrogate_identities"] == 100


def test_a_pool_that_is_held_out_still_fits() -> None:
    spec = load_spec(None, ["protect.surrogate_pool=held-out", "protect.pool_identities=20"])
    assert smoke(spec).data.model_dump()["identities"] == 40


def test_a_grid_becomes_two_trials() -> None:
    lists = [
        f"sweep.space.{lever}=[.1, .2, .3]"
        for lever in ExperimentSpec().sweep.space.__class__.model_fields
    ]
    tiny = smoke(load_spec(None, ["sweep.search=grid", *lists]))
    assert planned_trials(tiny) == 2


def test_its_results_are_kept_apart() -> None:
    spec = ExperimentSpec(name="n" * 64)
    assert smoke(spec).name.endswith("-smoke")
    assert smoke(spec).run_fingerprint != spec.run_fingerprint
