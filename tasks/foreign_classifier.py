"""Classifiers that somebody else trained: a state with an architecture's name, or a factory.

Whatever they want to be shown, they are asked with images of any size in the range that they state;
resizing and normalisation happen inside, once.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tasks.classifiers import SMALL_NETS, Classifier, TorchClassifier, build_model
from tasks.draws import Draws
from tasks.errors import AccessError, DataError, DcdctlError, MissingDataError, SpecError
from tasks.training_spec import TrainingSpec
from tasks.types import UNIT, Bounds

Access = Literal["white-box", "scores"]

Triple = tuple[float, float, float]

NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation by name; half is what this program's own classifiers use."""

_MARKER = 9973  # classes of a network that is built only to see which layer is the last


@dataclass(frozen=True)
class Inputs:
    """What a classifier wants to be shown.

    Attributes:
        image_size: height and width; other sizes are resized.
        mean, std: of each channel, in the range of `bounds`.
        bounds: range of its pixels before they are normalised.
    """

    image_size: int
    mean: Triple = NORMALISATIONS["none"][0]
    std: Triple = NORMALISATIONS["none"][1]
    bounds: Bounds = UNIT


@dataclass(frozen=True)
class Foreign:
    """A classifier with what may be done to it.

    Attributes:
        classifier: behind the protocol.
        access: white-box where it grants gradients.
        has_features: `embed` works.
        architecture: name for the record.
        weights: its parameters, to see that no judge shares them; empty where they are not known.
    """

    classifier: Classifier
    access: Access
    has_features: bool
    architecture: str
    weights: Mapping[str, Tensor]


class ForeignClassifier(TorchClassifier):
    """A module with its own input size, range and normalisation, frozen, in evaluation mode.

    Args:
        module: takes normalised images; returns logits, or probabilities if `scores`.
        num_classes: its outputs.
        inputs: what it wants to be shown.
        scores: it ends in a softmax, which is undone to have logits.
    """

    def __init__(
        self, module: nn.Module, num_classes: int, inputs: Inputs, *, scores: bool = False
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.num_classes = num_classes
        self.image_size = inputs.image_size
        self.bounds = inputs.bounds
        self.autocast = None
        first = next(module.parameters(), None)
        self.device = torch.device("cpu") if first is None else first.device
        self._scores = scores
        self._mean = torch.tensor(inputs.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(inputs.std, device=self.device).view(1, 3, 1, 1)

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (n, num_classes); gradients flow to the images."""
        images = (resized(images, self.image_size) - self._mean) / self._std
        outputs: Tensor = self.module(images)
        return outputs.float().clamp_min(1e-12).log() if self._scores else outputs.float()


class ForeignObject:
    """Somebody's object with `logits` or `scores`, behind the classifier protocol.

    Args:
        model: has `logits(images)`, or `scores(images)`, or both.
        num_classes: its outputs.
        inputs: what it wants to be shown; mean and deviation are its own affair.
    """

    def __init__(self, model: Any, num_classes: int, inputs: Inputs) -> None:
        self._model = model
        self.num_classes = num_classes
        self.image_size = inputs.image_size
        self.bounds = inputs.bounds
        self.device = torch.device("cpu")

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes), differentiable.

        Raises:
            AccessError: it has scores only.
        """
        if not hasattr(self._model, "logits"):
            raise AccessError("the audited object gives scores and no logits; use black-box ones")
        found: Tensor = self._model.logits(resized(images, self.image_size))
        return found.float()

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: its inside is not known.

        Raises:
            AccessError: always.
        """
        raise AccessError("the audited object has no features; use an attack without, such as ppa")

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return class probabilities (n, num_classes)."""
        if not hasattr(self._model, "scores"):
            return functional.softmax(self.logits(images), dim=1)
        found: Tensor = self._model.scores(resized(images, self.image_size))
        return found.float()

    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class of each image, int64 (n,)."""
        return self.scores(images).argmax(dim=1)


def resized(images: Tensor, size: int) -> Tensor:
    """Return images (n, 3, h, w) at size x size, as they are where they fit."""
    if images.shape[2:] == (size, size):
        return images
    return functional.interpolate(
        images, size=size, mode="bilinear", antialias=True, align_corners=False
    )


def load_state(file: Path, architecture: str, inputs: Inputs) -> Foreign:
    """Read a .safetensors state into a network of that name; the classes come from its last layer.

    Raises:
        MissingDataError: the file does not exist.
        SpecError: no network has that name.
        DataError: it is no such file, or does not fit the network; names the first key.
    """
    if not file.is_file():
        raise MissingDataError(
            f"the model {file} does not exist; name a .safetensors file, a checkpoint folder, an "
            "address, or a factory such as models.py:make"
        )
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{file} is no safetensors file (a pickle is never opened); write the state with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        ) from error
    if state and all(key.startswith("module.") for key in state):  # as DataParallel saves it
        state = {key.removeprefix("module."): value for key, value in state.items()}
    width = _width(architecture, state)
    blank = TrainingSpec(architecture=architecture, width=width or TrainingSpec().width)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in build_model(blank, _MARKER, Draws(0)).state_dict().items()}
    last = [key for key, shape in shapes.items() if len(shape) > 1 and shape[0] == _MARKER][-1]
    if last not in state or state[last].ndim != len(shapes[last]):
        raise DataError(
            f"{file} is no state of {architecture}: its last layer {last!r} is missing"
            f"{_instead(state, shapes)}; give the architecture that was trained"
        )
    module = build_model(blank, len(state[last]), Draws(0))
    _check_fit(file, architecture, state, module.state_dict())
    module.load_state_dict(state)
    classifier = ForeignClassifier(module, len(state[last]), inputs)
    _probe(module, inputs, architecture)
    return Foreign(classifier, "white-box", True, architecture, dict(module.named_parameters()))


def _width(architecture: str, state: Mapping[str, Tensor]) -> int | None:
    """Return the width of a small net as its first layer has it; None for other networks."""
    if architecture not in SMALL_NETS:
        return None
    first = next(iter(SMALL_NETS[architecture](2, 8).state_dict()))
    channels = SMALL_NETS[architecture](2, 8).state_dict()[first].shape[0] // 8
    return max(4, state[first].shape[0] // channels) if first in state else None


def _instead(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    strange = next((key for key in state if key not in wanted), None)
    return "" if strange is None else f", and it holds {strange!r}"


def _check_fit(
    file: Path, architecture: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Name the first key that is missing, unexpected, or of another shape.

    Raises:
        DataError: there is one.
    """
    advice = "give the architecture that was trained, or the state of this one"
    for key, value in wanted.items():
        if key not in state:
            raise DataError(f"{file} is no state of {architecture}: {key!r} is missing; {advice}")
        if state[key].shape != value.shape:
            raise DataError(
                f"{file} is no state of {architecture}: {key!r} is "
                f"{_shape(state[key])}, not {_shape(value)}; {advice}"
            )
    for key in state:
        if key not in wanted:
            raise DataError(
                f"{file} is no state of {architecture}: {key!r} is unexpected; {advice}"
            )


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"


def load_factory(name: str, inputs: Inputs, *, trusted: bool) -> Foreign:
    """Call a user's function, given as module:function or file.py:function, for a classifier.

    Args:
        name: the function; it is called without arguments.
        inputs: what its classifier wants to be shown.
        trusted: the user said that this code may run.

    Raises:
        SpecError: the code is not trusted.
        MissingDataError: the file, the module or the function does not exist.
        DataError: it raises, or returns no classifier.
    """
    if not trusted:
        raise SpecError(
            f"{name} is code, and running it gives it all that you may do; read it, and pass "
            "--trust-code"
        )
    function = _function(name)
    try:
        model = function()
    except DcdctlError:
        raise
    except Exception as error:
        raise DataError(f"the factory {name} raises {_first_line(error)}") from error
    if isinstance(model, nn.Module) and not hasattr(model, "scores"):
        outputs = _probe(model.eval(), inputs, name)
        scores = _are_probabilities(outputs)
        classifier = ForeignClassifier(model, outputs.shape[1], inputs, scores=scores)
        linear = any(isinstance(module, nn.Linear) for module in model.modules())
        weights = dict(model.named_parameters())
        return Foreign(classifier, "white-box", linear, type(model).__name__, weights)
    if not hasattr(model, "logits") and not hasattr(model, "scores"):
        raise DataError(
            f"the factory {name} returns a {type(model).__name__}; return an nn.Module, or an "
            "object with logits(images) or scores(images)"
        )
    answers = model.logits if hasattr(model, "logits") else model.scores
    outputs = _probe(answers, inputs, name)
    if not hasattr(model, "logits") and not _are_probabilities(outputs):
        raise DataError(
            f"scores() of what {name} returns are no probabilities; call it logits(), or apply a "
            "softmax"
        )
    access: Access = "white-box" if hasattr(model, "logits") else "scores"
    found = ForeignObject(model, outputs.shape[1], inputs)
    own = dict(model.named_parameters()) if isinstance(model, nn.Module) else {}
    return Foreign(found, access, False, type(model).__name__, own)


def _function(name: str) -> Any:
    place, _, function = name.rpartition(":")
    try:
        if place.endswith(".py"):
            if not Path(place).is_file():
                raise MissingDataError(f"the file {place} of the factory {name} does not exist")
            spec = importlib.util.spec_from_file_location("audited_factory", place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
        return getattr(module, function)
    except DcdctlError:
        raise
    except (ModuleNotFoundError, AttributeError) as error:
        raise MissingDataError(f"the factory {name} is not there: {_first_line(error)}") from error
    except Exception as error:
        raise DataError(f"the code of the factory {name} raises {_first_line(error)}") from error


def _probe(model: Any, inputs: Inputs, name: str) -> Tensor:
    """Show two grey pictures, to see that the answer is one that can be attacked; return it.

    Raises:
        DataError: it raises, or gives no finite (2, classes).
    """
    middle = (inputs.bounds.low + inputs.bounds.high) / 2
    images = torch.full((2, 3, inputs.image_size, inputs.image_size), middle)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (inputs.mean, inputs.std))
    if isinstance(model, nn.Module):
        images = (images - mean) / std
    try:
        with torch.no_grad():
            outputs = model(images)
    except Exception as error:
        raise DataError(
            f"{name} does not take images of 3x{inputs.image_size}x{inputs.image_size}: "
            f"{_first_line(error)}; set --image-size"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 2:
        shown = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise DataError(f"{name} answers 2 images with {shown}; one row of scores each is needed")
    if outputs.shape[1] < 2:
        raise DataError(f"{name} has {outputs.shape[1]} class; an audit needs 2 or more")
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(
            f"{name} answers a grey picture with numbers that are not finite; its weights are "
            "damaged, or the normalisation is wrong"
        )
    return outputs


def _are_probabilities(outputs: Tensor) -> bool:
    total = outputs.float().sum(dim=1)
    return float(outputs.min()) >= 0 and float((total - 1).abs().max()) < 1e-3


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or "without a message").splitlines()[0]
    return f"{type(error).__name__}: {text}"


def shared_weight(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """Return the first parameter of `one` that stands in `other` too; None where they differ.

    Vectors say nothing: fresh biases and norms are equal everywhere.
    """
    matrices = [value for value in other.values() if value.ndim > 1]
    for name, value in one.items():
        if value.ndim > 1 and any(
            value.shape == found.shape and torch.equal(value.float().cpu(), found.float().cpu())
            for found in matrices
        ):
            return name
    return None
