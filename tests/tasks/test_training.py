"""Training: learns, is deterministic, goes on where it was, and says when it breaks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tasks.batches import augment_views, epoch_batches
from tasks.classifiers import build_model
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.training import TrainingState, fit
from tasks.training_spec import TrainingSpec

SPEC = TrainingSpec(width=4, epochs=6, batch_size=16, learning_rate=1e-2, precision="float32")


def coloured(n: int = 60) -> tuple[Tensor, Tensor]:
    """Images of three classes that differ in their colour."""
    labels = torch.arange(n) % 3
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.3
    images[torch.arange(n), labels] += 0.6
    return images, labels


def trained(spec: TrainingSpec, seed: int = 0) -> tuple[dict[str, Tensor], list[float]]:
    draws = Draws(seed)
    model = build_model(spec, 3, draws)
    losses = fit(model, *coloured(), spec, draws)
    return {k: v.clone() for k, v in model.state_dict().items()}, losses


@pytest.mark.parametrize("architecture", ["small-resnet", "small-vgg"])
def test_it_learns_and_is_deterministic_by_seed(architecture: str) -> None:
    spec = SPEC.model_copy(update={"architecture": architecture})
    first, losses = trained(spec)
    again, _ = trained(spec)
    other, _ = trained(spec, seed=1)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def after_epoch(spec: TrainingSpec, epoch: int) -> TrainingState:
    """Return the state of a training that was stopped after an epoch."""
    states: list[TrainingState] = []

    class Stop(Exception):
        pass

    def on_epoch(state: TrainingState) -> None:
        if state.epoch == epoch:
            states.append(copy.deepcopy(state))
            raise Stop

    draws = Draws(0)
    with pytest.raises(Stop):
        fit(build_model(spec, 3, draws), *coloured(), spec, draws, on_epoch=on_epoch)
    return states[0]


def test_it_goes_on_where_it_was() -> None:
    whole, losses = trained(SPEC)
    fresh = build_model(SPEC, 3, Draws(9))
    rest = fit(fresh, *coloured(), SPEC, Draws(0), start=after_epoch(SPEC, 2))
    assert rest == losses
    assert all(torch.equal(value, whole[name]) for name, value in fresh.state_dict().items())


def test_processes_share_each_global_batch() -> None:
    images, labels = coloured(50)
    draws = Draws(4)
    whole = list(epoch_batches(images, labels, 16, draws, augment=True))
    parts = [
        list(epoch_batches(images, labels, 16, draws, augment=True, rank=r, world=2))
        for r in range(2)
    ]
    for (views, wanted, rows), *shares in zip(whole, *parts, strict=True):
        assert rows == len(wanted) == shares[0][2] == shares[1][2]
        assert torch.equal(views[0::2], shares[0][0])
        assert torch.equal(views[1::2], shares[1][0])
        assert torch.equal(wanted[0::2], shares[0][1])


def test_augmented_views_stay_in_range_and_keep_their_size() -> None:
    images, _ = coloured(20)
    views = augment_views(images, Draws(0).uniform(torch.arange(20).numpy(), 7))
    assert views.shape == images.shape
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1
    assert not torch.equal(views, images)


def test_a_loss_that_is_not_finite_is_one_sentence() -> None:
    images, labels = coloured()
    images[0] = float("nan")
    spec = SPEC.model_copy(update={"augment": False})
    with pytest.raises(TrainingError, match="training loss is nan after epoch 1 of 6; lower"):
        fit(build_model(spec, 3, Draws(0)), images, labels, spec, Draws(0))


def test_too_few_rows_are_refused() -> None:
    images, labels = coloured(3)
    with pytest.raises(TrainingError, match="3 training rows in batches of 16 for 2 processes"):
        fit(build_model(SPEC, 3, Draws(0)), images, labels, SPEC, Draws(0), world=2)
