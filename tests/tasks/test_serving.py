"""The contract of output defences, and what each of them promises."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tasks.checkpoint import Checkpoint, CheckpointMeta, load_checkpoint
from tasks.classifiers import LabelsOnly, ScoresOnly, build_model
from tasks.draws import Draws
from tasks.errors import DataError, TrainingError
from tasks.serving.memguard import MemGuard
from tasks.serving.output import fit_output, held_out_rows
from tasks.serving.spec import (
    AnyOutput,
    MemGuardSpec,
    OutputDefenseSpec,
    PurificationSpec,
    RawSpec,
    ServingSpec,
)
from tasks.training import fit
from tests.tasks.test_training import SPEC, coloured

ANY: TypeAdapter[AnyOutput] = TypeAdapter(OutputDefenseSpec)
NAMES = sorted({kind.model_fields["name"].default for kind in get_args(AnyOutput)} - {"none"})


@functools.cache
def raw() -> Checkpoint:
    images, labels = coloured()
    module = build_model(SPEC, 3, Draws(0))
    fit(module, images, labels, SPEC, Draws(0))
    meta = CheckpointMeta(training=SPEC, num_classes=3, image_size=16)
    return Checkpoint(module, meta)


@functools.cache
def shown() -> tuple[Tensor, Tensor]:
    """Return scores of images that were trained on, and of others."""
    classifier = raw().classifier()
    others = coloured(120)[0][60:]
    return classifier.scores(coloured()[0]), classifier.scores(
        0.6 * others + 0.4 * torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    )


def served(spec: AnyOutput, seed: int = 0) -> Checkpoint:
    output = fit_output(spec, *shown(), Draws(seed))
    meta = raw().meta.model_copy(update={"serving": ServingSpec(defense=spec)})
    return replace(raw(), meta=meta, output=output)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_well_is_deterministic_and_comes_back_from_disk(
    name: str, tmp_path: Path
) -> None:
    spec = ANY.validate_python(name)
    first, again = served(spec), served(spec)
    images, labels = coloured(90)
    scores = first.classifier().scores(images[60:])
    assert torch.allclose(scores.sum(dim=1), torch.ones(30), atol=1e-5)
    assert float(scores.min()) >= 0
    assert float((scores.argmax(dim=1) == labels[60:]).float().mean()) > 0.6
    assert torch.equal(first.classifier().labels(images[60:]), scores.argmax(dim=1))
    assert torch.equal(again.classifier().scores(images[60:]), scores)
    loaded = load_checkpoint(first.save(tmp_path / "checkpoint"))
    assert loaded.meta.model_copy(update={"weights_sha256": ""}) == first.meta
    assert torch.equal(loaded.classifier().scores(images[60:]), scores)
    (tmp_path / "checkpoint" / "output.safetensors").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize("name", NAMES)
def test_who_asks_for_scores_meets_it_and_white_box_access_does_not(name: str) -> None:
    inside, plain = served(ANY.validate_python(name)).classifier(), raw().classifier()
    images = torch.rand(40, 3, 16, 16)
    assert torch.equal(inside.logits(images), plain.logits(images))
    assert not torch.equal(ScoresOnly(inside).scores(images), plain.scores(images))
    said = inside.scores(images).argmax(dim=1)
    assert torch.equal(LabelsOnly(inside).labels(images), said)


def test_memguard_keeps_every_label_stays_in_its_budget_and_confuses_the_guess() -> None:
    members, others = shown()
    guard = served(MemGuardSpec()).output
    assert isinstance(guard, MemGuard)
    scores = torch.cat([members, others])
    found = guard(scores)
    assert torch.equal(found.argmax(dim=1), scores.argmax(dim=1))
    before, after = (guard.membership(one).abs() for one in (scores, found))
    assert float(after.mean()) < 0.7 * float(before.mean())
    assert float((found - scores).abs().sum(dim=1).mean()) <= 1.0
    tight = served(MemGuardSpec(epsilon=0.02)).output
    assert tight is not None
    assert float((tight(scores) - scores).abs().sum(dim=1).mean()) < 0.06  # in expectation
    none = served(MemGuardSpec(epsilon=0.0)).output
    assert none is not None
    assert torch.equal(none(scores), scores)


def test_asking_memguard_again_or_in_another_batch_averages_nothing_away() -> None:
    guard = served(MemGuardSpec(epsilon=0.05)).output
    assert guard is not None
    scores = torch.cat(shown())
    whole = guard(scores)
    assert torch.equal(guard(scores), whole)
    parts = torch.cat([guard(part) for part in scores.split(7)])
    assert torch.allclose(parts, whole, atol=1e-4)


def test_purified_answers_say_less_of_the_image() -> None:
    scores = torch.cat(shown())
    narrow = served(PurificationSpec(code=1, epochs=200)).output
    assert narrow is not None
    found = narrow(scores)
    rank = torch.linalg.svdvals(found - found.mean(dim=0))
    full = torch.linalg.svdvals(scores - scores.mean(dim=0))
    assert float(rank[1] / rank[0]) < float(full[1] / full[0])


def test_few_held_out_images_of_many_classes_are_enough_to_keep_the_labels() -> None:
    """Four of each of forty classes: what a tenth of the built-in faces is."""
    draw = torch.Generator().manual_seed(0)

    def sure(count: int) -> Tensor:
        labels = torch.arange(40).repeat(count)
        logits = torch.randn(len(labels), 40, generator=draw)
        logits[torch.arange(len(labels)), labels] += 6
        return logits.softmax(dim=1)

    guard = fit_output(PurificationSpec(), sure(8), sure(4), Draws(0))
    asked = sure(10)
    assert (guard(asked).argmax(dim=1) == asked.argmax(dim=1)).float().mean() > 0.97


def test_copies_of_an_image_are_held_out_together_and_some_must_be() -> None:
    sources = np.repeat(np.arange(200), 4)
    away = held_out_rows(sources, MemGuardSpec(held_out=0.25), Draws(0))
    assert 0.15 < away.mean() < 0.35
    assert (away.reshape(200, 4) == away.reshape(200, 4)[:, :1]).all()
    assert not held_out_rows(sources, RawSpec(), Draws(0)).any()
    with pytest.raises(TrainingError, match="memguard has no held-out images to be fitted on"):
        fit_output(MemGuardSpec(), shown()[0], torch.empty(0, 3), Draws(0))
