"""Features: what the last layer is given, and a face embedding from a file of weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from tasks.classifiers import SMALL_NETS, TorchClassifier, normalise
from tasks.draws import Draws
from tasks.errors import DataError, MissingDataError, SpecError
from tasks.evaluation import to_unit
from tasks.evaluation.features import classifier_features, load_embedding
from tasks.evaluation.knowledge import STUDENT, knowledge_extraction
from tasks.training_spec import EmbeddingSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", SMALL_NETS)
def test_they_are_the_networks_own_penultimate_features(name: str) -> None:
    module = SMALL_NETS[name](5, 8)
    found = classifier_features(TorchClassifier(module, 5, 32))(IMAGES)
    with torch.no_grad():
        own = module.features(normalise(to_unit(IMAGES)))
    assert found == pytest.approx(own.double().numpy(), abs=1e-4)
    assert classifier_features(TorchClassifier(module, 5, 32))(IMAGES[:0]).shape == (
        0,
        own.shape[1],
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "faces.safetensors"
    network = models.get_model("resnet18", weights=None, num_classes=7)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


def test_an_embedding_is_read_from_weights_and_a_name(weights: Path) -> None:
    spec = EmbeddingSpec(path=str(weights), architecture="resnet18", image_size=40)
    assert load_embedding(spec)(IMAGES).shape == (3, 7)
    before = load_embedding(spec.model_copy(update={"layer": "penultimate"}))(IMAGES)
    assert before.shape == (3, 512)
    assert np.isfinite(before).all()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"path": "none.safetensors"}, MissingDataError, "does not exist"),
        ({"architecture": "facenet"}, SpecError, "no network of torchvision"),
        ({"architecture": "resnet34"}, DataError, "cannot be read as a resnet34"),
    ],
)
def test_what_cannot_be_used_is_said(
    weights: Path, change: dict[str, str], error: type[Exception], match: str
) -> None:
    spec = EmbeddingSpec(path=str(weights), architecture="resnet18").model_copy(update=change)
    with pytest.raises(error, match=match):
        load_embedding(spec)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.safetensors"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(DataError, match="cannot be read"):
        load_embedding(EmbeddingSpec(path=str(path), architecture="resnet18"))


def test_a_student_learns_from_reconstructions_what_is_in_them() -> None:
    rng = np.random.default_rng(0)
    colours = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]])

    def drawn(count: int) -> np.ndarray:
        noise = rng.normal(0, 20, (3, count, 16, 16, 3))
        return np.clip(colours[:, None, None, None] + noise, 0, 255).astype(np.uint8)

    real, positions = drawn(10).reshape(-1, 16, 16, 3), np.repeat(np.arange(3), 10)
    spec = STUDENT.model_copy(update={"width": 4, "epochs": 8, "batch_size": 8})
    good = knowledge_extraction(drawn(6), real, positions, Draws(0), spec)
    assert good is not None
    assert (good.n, good.trained_on) == (30, 18)
    assert good.chance == pytest.approx(1 / 3)
    assert good.hits >= 28
    empty = np.tile(drawn(6)[:1], (3, 1, 1, 1, 1))  # all three show the first
    nothing = knowledge_extraction(empty, real, positions, Draws(0), spec)
    assert nothing is not None
    assert nothing.hits <= 20
    again = knowledge_extraction(empty, real, positions, Draws(0), spec)
    assert again is not None
    assert dataclasses.asdict(nothing) == dataclasses.asdict(again)
    assert knowledge_extraction(empty[:1], real, positions, Draws(0), spec) is None
