"""Classifiers from outside: a state with a name, a factory; and what is said of those that fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tasks.classifiers import SmallResNet, SmallVgg, normalise
from tasks.errors import AccessError, DataError, MissingDataError, SpecError
from tasks.foreign_classifier import (
    NORMALISATIONS,
    Inputs,
    load_factory,
    load_state,
    shared_weight,
)
from tasks.types import UNIT, Bounds

HALF = Inputs(16, *NORMALISATIONS["half"])


def state_of(module: nn.Module, file: Path, **changes: Tensor | None) -> Path:
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    save_file(state, file)
    return file


def test_a_state_of_a_small_net_says_its_classes_and_its_width(tmp_path: Path) -> None:
    for kind, name in ((SmallResNet, "small-resnet"), (SmallVgg, "small-vgg")):
        module = kind(7, 10).eval()
        found = load_state(state_of(module, tmp_path / "m.safetensors"), name, HALF)
        images = torch.rand(3, 3, 16, 16)
        assert (found.classifier.num_classes, found.access) == (7, "white-box")
        with torch.no_grad():
            wanted = module(normalise(images))
        assert torch.allclose(found.classifier.logits(images), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_a_torchvision_state_is_resized_and_normalised_inside(tmp_path: Path, name: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    module = models.get_model(name, weights=None, num_classes=5).eval()
    module_state = {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    save_file(module_state, tmp_path / "m.safetensors")  # as DataParallel names its keys
    mean, std = NORMALISATIONS["imagenet"]
    found = load_state(tmp_path / "m.safetensors", name, Inputs(64, mean, std)).classifier
    images = torch.rand(2, 3, 64, 64)
    normal = (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(found.logits(images), module(normal), atol=1e-4)
    assert found.num_classes == 5
    small = torch.rand(2, 3, 16, 16, requires_grad=True)
    found.logits(small).sum().backward()
    assert small.grad is not None
    assert float(small.grad.abs().sum()) > 0


def test_it_states_its_own_range(tmp_path: Path) -> None:
    file = state_of(SmallResNet(3, 8), tmp_path / "m.safetensors")
    bytes_ = Inputs(16, (127.5,) * 3, (127.5,) * 3, Bounds(0, 255))
    one = load_state(file, "small-resnet", HALF).classifier
    other = load_state(file, "small-resnet", bytes_).classifier
    images = torch.rand(2, 3, 16, 16)
    assert (one.bounds, other.bounds) == (UNIT, Bounds(0, 255))
    assert torch.allclose(one.scores(images), other.scores(255 * images), atol=1e-5)


def test_a_state_that_does_not_fit_names_the_first_key(tmp_path: Path) -> None:
    net, file = SmallResNet(4, 8), tmp_path / "m.safetensors"
    for changes, sentence in (
        ({"stem__1__bias": None}, "'stem.1.bias' is missing; give the architecture"),
        ({"stem__1__bias": torch.zeros(5)}, "'stem.1.bias' is 5, not 8"),
        ({"extra": torch.zeros(2)}, "'extra' is unexpected"),
        ({"head__weight": None}, "its last layer 'head.weight' is missing"),
    ):
        state_of(net, file, **changes)
        with pytest.raises(DataError, match=sentence):
            load_state(file, "small-resnet", HALF)
    state_of(net, file)
    with pytest.raises(DataError, match=r"no state of resnet18: its last layer 'fc.weight' is mis"):
        load_state(file, "resnet18", HALF)
    with pytest.raises(SpecError, match="'resnet17' is unknown; did you mean 'resnet"):
        load_state(file, "resnet17", HALF)


def test_a_file_that_is_missing_or_a_pickle(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="does not exist"):
        load_state(tmp_path / "none.safetensors", "resnet18", HALF)
    torch.save({"a": torch.zeros(1)}, tmp_path / "m.pt")
    with pytest.raises(DataError, match="a pickle is never opened"):
        load_state(tmp_path / "m.pt", "resnet18", HALF)


FACTORIES = """
import torch
from torch import nn

class Scores:
    def scores(self, images):
        return torch.softmax(images.mean(dim=(2, 3)), dim=1)

class Logits(Scores):
    def logits(self, images):
        return images.mean(dim=(2, 3))

def module():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))

def softmaxed():
    return nn.Sequential(module(), nn.Softmax(dim=1))

def scores():
    return Scores()

def logits():
    return Logits()

def raises():
    raise RuntimeError("no weights\\nmore")

def number():
    return 3

def one_class():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1))

def picky():
    return nn.Linear(9, 2)

def infinite():
    class Broken(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) * float("nan")
    return Broken()
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    (tmp_path / "models.py").write_text(FACTORIES)
    return str(tmp_path / "models.py")


INPUTS = Inputs(16)


def test_a_factory_may_return_a_module_or_an_object(factories: str) -> None:
    images = torch.rand(2, 3, 16, 16)
    kinds = {}
    for name in ("module", "softmaxed", "scores", "logits"):
        found = load_factory(f"{factories}:{name}", INPUTS, trusted=True)
        kinds[name] = (found.access, found.classifier.num_classes, found.has_features)
        total = found.classifier.scores(images).sum(dim=1)
        assert torch.allclose(total, torch.ones(2), atol=1e-4)
        assert torch.equal(
            found.classifier.labels(images), found.classifier.scores(images).argmax(dim=1)
        )
    assert kinds == {
        "module": ("white-box", 5, True),
        "softmaxed": ("white-box", 5, True),
        "scores": ("scores", 3, False),
        "logits": ("white-box", 3, False),
    }
    with pytest.raises(AccessError, match="scores and no logits"):
        load_factory(f"{factories}:scores", INPUTS, trusted=True).classifier.logits(images)


def test_a_factory_that_is_not_trusted_is_not_even_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SpecError, match="is code, .* pass --trust-code"):
        load_factory(f"{tmp_path / 'bad.py'}:make", INPUTS, trusted=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("raises", DataError, r"raises RuntimeError: no weights$"),
        ("number", DataError, "returns a int; return an nn.Module"),
        ("one_class", DataError, "has 1 class; an audit needs 2"),
        ("picky", DataError, "does not take images of 3x16x16"),
        ("infinite", DataError, "not finite"),
        ("nothing", MissingDataError, "is not there: AttributeError"),
    ],
)
def test_a_factory_that_fails(
    factories: str, name: str, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        load_factory(f"{factories}:{name}", INPUTS, trusted=True)


def test_a_factory_whose_file_or_module_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="none.py of the factory"):
        load_factory(f"{tmp_path / 'none.py'}:make", INPUTS, trusted=True)
    with pytest.raises(MissingDataError, match="is not there: ModuleNotFoundError"):
        load_factory("no_such_module:make", INPUTS, trusted=True)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(DataError, match="raises ZeroDivisionError"):
        load_factory(f"{tmp_path / 'broken.py'}:make", INPUTS, trusted=True)


def test_a_shared_weight_is_found_under_any_name() -> None:
    one, other = SmallResNet(4, 8), SmallVgg(4, 8)
    first: dict[str, Tensor] = dict(one.named_parameters())
    second: dict[str, Tensor] = dict(other.named_parameters())
    assert shared_weight(first, second) is None
    second["other.name"] = first["head.weight"].detach().clone()
    assert shared_weight(first, second) == "head.weight"
