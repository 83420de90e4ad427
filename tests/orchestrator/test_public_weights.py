"""The network that transfer and fine-tuning start from: whom it learns, and who starts from it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from orchestrator.commands import train
from orchestrator.config import load_spec
from orchestrator.planning import plan_summary
from orchestrator.public_weights import MOST_PEOPLE, plain_recipe, public_people
from orchestrator.selection import Selection
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from orchestrator.trial import PublicWeights, TrialPlan, World
from orchestrator.workload import PUBLIC
from tasks.checkpoint import load_checkpoint
from tasks.defenses.spec import MidSpec, TransferSpec
from tasks.training_spec import TrainingSpec


def selection_of(images: dict[str, int]) -> Selection:
    rows = pa.table({"identity": [name for name, count in images.items() for _ in range(count)]})
    rows = rows.append_column("split", pa.array(["public"] * rows.num_rows))
    return Selection(rows=rows, targets=(), num_classes=2)


def test_only_people_with_two_images_are_learnt_and_not_all_of_a_large_set() -> None:
    few = public_people(selection_of({"ann": 3, "bob": 1, "cem": 2}))
    assert few["identity"].to_pylist() == ["ann"] * 3 + ["cem"] * 2
    assert public_people(selection_of({"ann": 3, "bob": 1})).num_rows == 0
    many = public_people(selection_of({f"{i:04}": 2 for i in range(MOST_PEOPLE + 7)}))
    assert many["identity"].unique().to_pylist() == [f"{i:04}" for i in range(MOST_PEOPLE)]


def test_a_plain_recipe_takes_every_image_as_it_is() -> None:
    recipe = plain_recipe(np.array([2, 0, 1]))
    assert recipe["label"].to_pylist() == [2, 0, 1]
    assert recipe["source_row"].to_pylist() == [0, 1, 2]
    assert set(recipe["role"].to_pylist()) == {"clean"}
    assert set(recipe["sigma"].to_pylist()) == {0.0}


def test_a_trial_is_another_one_when_it_starts_from_another_network() -> None:
    world = World(
        rows=pa.table({"split": []}),
        images=np.zeros((0, 16, 16, 3), np.uint8),
        targets=(),
        pseudonyms=(),
        num_classes=2,
        seed=0,
        digest="data",
    )

    def ids(defense: TransferSpec | MidSpec) -> set[str]:
        plan = TrialPlan(1, None, TrainingSpec(defense=defense), ())
        public = [None, PublicWeights("a", {}), PublicWeights("b", {})]
        return {plan.trial_id(World(**vars(world) | {"public": one}), "judge") for one in public}

    assert len(ids(TransferSpec())) == 3
    assert len(ids(MidSpec())) == 1


@pytest.fixture
def spec(tmp_path: object) -> ExperimentSpec:
    settings = ["training.defense=transfer", "tracking.enabled=false", f"storage={tmp_path}/out"]
    return smoke(load_spec(None, settings))


def test_transfer_learns_public_people_first_by_itself(spec: ExperimentSpec, ray: None) -> None:
    """From the command on: nobody has to name a checkpoint."""
    store = Store(spec.storage)
    assert PUBLIC in unknown(spec)
    train(spec, "none", store.root / "model", Console(quiet=True))
    (folder,) = store.artifact("pretrained", "*").parent.glob("*")
    taught = load_checkpoint(folder).module.state_dict()
    found = load_checkpoint(store.root / "model").module.state_dict()
    frozen = [name for name in found if name.startswith(("stem", "stages.0"))]
    assert frozen
    assert all(torch.equal(found[name], taught[name]) for name in frozen)
    learnt = "stages.2.body.0.weight"
    assert not torch.equal(found[learnt], taught[learnt])
    assert PUBLIC not in unknown(spec)  # it is there: a plan does not count it again


def unknown(spec: ExperimentSpec) -> tuple[str, ...]:
    """Stages of a plan whose speed nobody has measured: all that is still to do."""
    cost = plan_summary(spec).cost
    assert cost is not None
    return tuple(cost.unknown)
