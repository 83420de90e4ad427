"""The contract of trainers, and what each of them does to an upload."""

from __future__ import annotations

import functools
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from tasks.classifiers import build_model
from tasks.defenses.spec import BidoSpec, DpSgdSpec
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.pipelines.balance import balanced
from tasks.pipelines.confident import out_of_sample, probably_wrong
from tasks.pipelines.duplicates import without_exact, without_near
from tasks.pipelines.fine_tune import FineTune
from tasks.pipelines.mixup import MixUp
from tasks.pipelines.pipeline import Pipeline, Upload
from tasks.pipelines.registry import make_trainer
from tasks.pipelines.spec import AnyTrainer, FineTuneSpec, MixUpSpec, TrainerSpec
from tasks.training import fit
from tests.tasks.test_training import SPEC, coloured

ANY: TypeAdapter[AnyTrainer] = TypeAdapter(TrainerSpec)
NAMES = sorted(kind.model_fields["name"].default for kind in get_args(AnyTrainer))


def upload() -> Upload:
    images, labels = coloured()
    return Upload(images, labels, 3, SPEC, Draws(3))


@functools.cache
def elsewhere() -> dict[str, Tensor]:
    """Return the state of a network that learnt other colours."""
    images, labels = coloured()
    module = build_model(SPEC, 4, Draws(9))
    fit(module, images.flip(1), labels, SPEC, Draws(9))
    return module.state_dict()


def trained(name: str, seed: int = 0) -> nn.Module:
    trainer, given = make_trainer(ANY.validate_python(name), elsewhere()), upload()
    rows = torch.from_numpy(trainer.rows(given))
    images = trainer.pixels(given.images[rows])
    assert images.shape[1:] == given.images.shape[1:]
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    spec = trainer.settings(SPEC)
    model = build_model(spec, 3, Draws(seed))
    fit(model, images, given.labels[rows], spec, Draws(seed), pipeline=trainer)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_the_same_seed_gives_the_same_network(name: str) -> None:
    first, again = trained(name), trained(name)
    images, labels = coloured(90)
    with torch.no_grad():
        answers = first((images[60:] - 0.5) / 0.5).argmax(dim=1)
    assert float((answers == labels[60:]).float().mean()) > 0.6  # of three classes
    two = again.state_dict()
    assert all(torch.equal(value, two[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("name", ["plain", "crop", "flip", "jitter"])
def test_views_stay_in_range_and_belong_to_the_row(name: str) -> None:
    trainer, images = make_trainer(ANY.validate_python(name)), coloured(20)[0]
    rows, draws = np.arange(20), Draws(1, ("epoch", 0))
    views = trainer.views(images, rows, draws)
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1
    assert torch.equal(views, images) == (name == "plain")
    assert torch.equal(trainer.views(images[5:9], rows[5:9], draws), views[5:9])
    assert not trainer.settings(SPEC).augment


def test_training_without_a_trainer_is_what_it_was() -> None:
    images, labels = coloured()
    models = [build_model(SPEC, 3, Draws(0)) for _ in range(2)]
    fit(models[0], images, labels, SPEC, Draws(0))
    fit(models[1], images, labels, SPEC, Draws(0), pipeline=Pipeline())
    one, two = (model.state_dict() for model in models)
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_exact_duplicates_are_equal_in_eight_bits_whatever_their_labels() -> None:
    images = torch.rand(30, 3, 16, 16)
    both = torch.cat([images, (images[:10].mul(255).round() / 255)])
    rows = without_exact(both, Draws(0))
    assert len(rows) == 30
    assert {row % 30 for row in rows} == set(range(30))
    assert len({tuple(without_exact(both, Draws(seed))) for seed in range(4)}) > 1


def test_near_duplicates_go_and_other_pictures_stay() -> None:
    images = torch.rand(600, 3, 32, 32)  # more than are compared at once
    noisy = (images[:50] + 0.01 * torch.randn(50, 3, 32, 32)).clamp(0, 1)
    rows = without_near(torch.cat([images, noisy]), 0.99, Draws(0))
    assert len(rows) == 600
    assert len({row if row < 600 else row - 600 for row in rows}) == 600


def test_balancing_gives_every_class_the_mean_and_repeats_small_ones() -> None:
    labels = np.array([0] * 40 + [1] * 5 + [3] * 15)
    rows = balanced(labels, Draws(0))
    assert np.bincount(labels[rows]).tolist() == [20, 20, 0, 20]
    assert len(set(rows[labels[rows] == 0])) == 20
    assert np.unique(rows[labels[rows] == 1], return_counts=True)[1].tolist() == [4] * 5


def test_the_confident_joint_is_the_hand_computed_one() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.7, 0.3]])
    # Thresholds 0.6 and 0.6: the third and the sixth row are confidently of the other class.
    assert probably_wrong(sure, labels).tolist() == [False, False, True, False, False, True]
    sure[5] = [0.55, 0.45]  # likelier of class 0, but below its threshold
    assert not probably_wrong(sure, labels)[5]


def test_confident_learning_finds_planted_mislabels() -> None:
    images, labels = coloured(120)
    planted = np.arange(0, 120, 12)
    given = labels.clone()
    given[planted] = (labels[planted] + 1) % 3
    spec = SPEC.model_copy(update={"epochs": 12})
    found = probably_wrong(
        out_of_sample(Upload(images, given, 3, spec, Draws(0)), 3, 1.0), given.numpy()
    )
    # A threshold is a mean, so that about half of equally sure rows lie above it.
    assert found[planted].mean() >= 0.4
    assert np.delete(found, planted).mean() <= 0.1


def test_jpeg_and_resize_lose_detail_but_not_the_picture() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    images = torch.stack([x, y, (x + y) / 2])[None] * 0.8 + 0.1
    noisy = (images + 0.05 * torch.randn(1, 3, 32, 32)).clamp(0, 1)
    for name in ("jpeg", "resize"):
        found = make_trainer(ANY.validate_python(name)).pixels(noisy)
        assert float((found - images).abs().mean()) < float((noisy - images).abs().mean())


def test_mixup_is_the_mixed_cross_entropy() -> None:
    views, labels = torch.randn(8, 4), torch.arange(8) % 4

    def loss_of(mixed: Tensor, wanted: Tensor) -> Tensor:
        return nn.functional.cross_entropy(mixed, wanted, reduction="sum")

    found = MixUp(MixUpSpec(alpha=1.0)).loss(loss_of, views, labels, Draws(2))
    source = Draws(2).generator()
    share, other = source.beta(1.0, 1.0), torch.from_numpy(source.permutation(8))
    mixed = share * views + (1 - share) * views[other]
    answers = nn.functional.one_hot(labels, 4).float()
    soft = share * answers + (1 - share) * answers[other]
    wanted = nn.functional.cross_entropy(mixed, soft, reduction="sum")
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_fine_tuning_starts_from_the_weights_and_needs_some() -> None:
    taught, fresh = build_model(SPEC, 5, Draws(9)), build_model(SPEC, 3, Draws(0))
    FineTune(FineTuneSpec(), taught.state_dict()).begin(fresh)
    own, other = fresh.state_dict(), taught.state_dict()
    assert torch.equal(own["stem.0.weight"], other["stem.0.weight"])
    assert own["head.weight"].shape == (3, other["head.weight"].shape[1])
    with pytest.raises(TrainingError, match="names fewer than two people"):
        FineTune(FineTuneSpec(), None).begin(fresh)
    wide = build_model(SPEC.model_copy(update={"width": 9}), 5, Draws(9)).state_dict()
    del wide["stem.0.weight"]
    with pytest.raises(TrainingError, match="another architecture or width"):
        FineTune(FineTuneSpec(), wide).begin(fresh)


def test_what_cannot_go_together_is_one_sentence() -> None:
    images, labels = coloured()
    dp = SPEC.model_copy(update={"defense": DpSgdSpec(delta=1e-3)})
    with pytest.raises(TrainingError, match="dp-sgd has a training loop of its own"):
        fit(build_model(dp, 3, Draws(0)), images, labels, dp, Draws(0), pipeline=Pipeline())
    bido = SPEC.model_copy(update={"defense": BidoSpec()})
    with pytest.raises(TrainingError, match="and so does defence bido; leave one of them out"):
        make_trainer(ANY.validate_python("label-smoothing")).settings(bido)
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        ANY.validate_python("cutmix")
