"""How many processes may be asked for, and float16 with a scaled loss."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from attacks.spec import GanSpec
from tasks.classifiers import build_model
from tasks.draws import Draws
from tasks.training import fit
from tasks.training_spec import TrainingSpec
from tasks.workers import WorkerRange, least_workers, most_workers, several_workers
from tests.tasks.test_training import SPEC, after_epoch, coloured


def test_a_number_and_a_range() -> None:
    spec = TrainingSpec.model_validate({"workers": {"most": 4}})
    assert spec.workers == WorkerRange(least=1, most=4)
    assert (least_workers(spec.workers), most_workers(spec.workers)) == (1, 4)
    assert (least_workers(3), most_workers(3)) == (3, 3)
    assert several_workers(spec.workers)
    assert not several_workers(1)
    assert TrainingSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": {"least": 4, "most": 2}}, "least=4 is above most=2; swap them"),
        ({"workers": 3, "batch_size": 5}, "use at most 2 workers, or batch_size=6"),
        ({"workers": {"most": 40}}, "batch_size=64 is too small for workers=40, since each"),
        ({"workers": {"most": 2}, "defense": "bido"}, "bido and workers=a range do not go"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainingSpec.model_validate(settings)


def test_a_prior_has_the_same_rule() -> None:
    with pytest.raises(ValidationError, match="use at most 4 workers, or batch_size=10"):
        GanSpec(batch_size=8, workers=5)


def test_float16_learns_scales_its_loss_and_goes_on_where_it_was() -> None:
    spec = SPEC.model_copy(update={"precision": "float16"})
    model = build_model(spec, 3, Draws(0))
    losses = fit(model, *coloured(), spec, Draws(0))
    assert losses[-1] < 0.6 * losses[0]
    state = after_epoch(spec, 2)
    assert state.scaler["scale"] >= 1
    fresh = build_model(spec, 3, Draws(9))
    rest = fit(fresh, *coloured(), spec, Draws(0), start=state)
    assert rest == losses
    assert all(
        torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items()
    )
