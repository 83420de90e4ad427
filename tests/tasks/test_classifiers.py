"""Classifiers, what an attack may see of them, and their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tasks.batchnorm import GlobalBatchNorm2d, globalise_batchnorm
from tasks.checkpoint import Checkpoint, CheckpointMeta, load_checkpoint
from tasks.classifiers import CountingClassifier, ScoresOnly, TorchClassifier, build_model
from tasks.draws import Draws
from tasks.errors import AccessError, DataError, MissingDataError, SpecError
from tasks.training_spec import TrainingSpec

SPEC = TrainingSpec(width=4, precision="float32")
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def classifier() -> TorchClassifier:
    return TorchClassifier(build_model(SPEC, 4, Draws(0)), 4, 16)


def test_scores_are_probabilities_and_logits_carry_a_gradient() -> None:
    images = IMAGES.clone().requires_grad_(True)
    scores = classifier().scores(images)
    assert scores.shape == (5, 4)
    assert torch.allclose(scores.sum(1), torch.ones(5), atol=1e-5)
    assert not scores.requires_grad
    classifier().logits(images).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_black_box_access_grants_no_gradient_and_counts() -> None:
    images = IMAGES.clone().requires_grad_(True)
    box = ScoresOnly(classifier())
    assert torch.equal(box.scores(images), classifier().scores(images))
    assert not box.scores(images).requires_grad
    assert box.queries == 10
    with pytest.raises(AccessError, match=r"black-box attack asked for logits; it may use scores"):
        box.logits(images)


def test_white_box_access_counts_too() -> None:
    box = CountingClassifier(classifier())
    box.logits(IMAGES)
    box.scores(IMAGES)
    assert box.queries == 10


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_models_come_by_name(name: str) -> None:
    spec = TrainingSpec(architecture=name)
    first, again = (build_model(spec, 7, Draws(3)) for _ in range(2))
    first.eval()
    assert first(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )


def test_an_unknown_architecture_is_one_sentence() -> None:
    with pytest.raises(SpecError, match="'resnet81' is unknown; did you mean 'resnet18'"):
        build_model(TrainingSpec(architecture="resnet81"), 7, Draws(0))


def test_building_a_model_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    build_model(SPEC, 4, Draws(0))
    assert torch.equal(torch.rand(1), before)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    module = build_model(SPEC, 4, Draws(2))
    meta = CheckpointMeta(training=SPEC, num_classes=4, image_size=16, losses=(2.0, 1.0))
    Checkpoint(module, meta).save(tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.meta.weights_sha256
    assert loaded.meta.model_copy(update={"weights_sha256": ""}) == meta
    assert torch.equal(
        loaded.classifier().logits(IMAGES), TorchClassifier(module, 4, 16).logits(IMAGES)
    )


def test_bad_checkpoints_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"holds no checkpoint: meta\.json is missing"):
        load_checkpoint(tmp_path)
    meta = CheckpointMeta(training=SPEC, num_classes=4, image_size=16)
    folder = Checkpoint(build_model(SPEC, 4, Draws(0)), meta).save(tmp_path / "c")
    weights = folder / "model.safetensors"
    whole, said = weights.read_bytes(), (folder / "meta.json").read_text()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for damaged in (whole[:-100], bytes(flipped), b""):
        weights.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged: its weights are not those"):
            load_checkpoint(folder)
    # Files of before the digest.
    digest = json.loads(said)["weights_sha256"]
    (folder / "meta.json").write_text(said.replace(digest, ""))
    weights.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"cannot be read \(SafetensorError\); train it again"):
        load_checkpoint(folder)


def test_global_batchnorm_is_batchnorm_in_one_process(tmp_path: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/sync", rank=0, world_size=1)
    try:
        plain = build_model(SPEC, 4, Draws(2)).train()
        twin = globalise_batchnorm(build_model(SPEC, 4, Draws(2))).train()
        assert any(isinstance(m, GlobalBatchNorm2d) for m in twin.modules())
        for model in (plain, twin):
            model(IMAGES).square().sum().backward()
        for a, b in zip(plain.parameters(), twin.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert torch.allclose(a.grad, b.grad, atol=1e-4, rtol=1e-3)
        for c, d in zip(plain.buffers(), twin.buffers(), strict=True):
            assert torch.allclose(c.float(), d.float(), atol=1e-5)
    finally:
        dist.destroy_process_group()
