"""Features: what a network says of an image just before it names a class, or a face embedding.

Distances and image-set metrics are taken between features. By default they are the evaluation
classifier's own; a face-embedding network of the user is a witness that never saw these classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tasks.classifiers import TorchClassifier, normalise
from tasks.device import default_device
from tasks.errors import DataError, MissingDataError, SpecError
from tasks.evaluation.judge import to_unit
from tasks.training_spec import EmbeddingSpec
from tasks.types import Image8

Floats = npt.NDArray[np.float64]
Features = Callable[[Image8], Floats]
"""Maps stored images (n, h, w, 3) to features (n, d)."""

_BATCH = 128


def classifier_features(classifier: TorchClassifier) -> Features:
    """Return a classifier's penultimate features: what its last linear layer is given."""
    return _batched(classifier.module, _last_linear(classifier.module), classifier.image_size)


def load_embedding(spec: EmbeddingSpec) -> Features:
    """Return a face-embedding network of the user, from a file of weights alone.

    Weights are safetensors and the network is torchvision's by name: nothing in the file is run. A
    TorchScript or pickled network would be code of a stranger, and is not taken.

    Raises:
        MissingDataError: the file does not exist.
        SpecError: torchvision has no network of that name.
        DataError: the file is damaged, or its weights do not fit the network.
    """
    from torchvision import models

    path = Path(spec.path or "")
    if not path.is_file():
        raise MissingDataError(
            f"evaluation.embedding.path={str(path)!r} does not exist; name a .safetensors file"
        )
    if spec.architecture not in models.list_models(module=models):
        raise SpecError(
            f"evaluation.embedding.architecture={spec.architecture!r} is no network of torchvision"
        )
    try:
        weights = load_file(path)
        network = models.get_model(spec.architecture, weights=None, num_classes=_outputs(weights))
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"the weights {path} cannot be read as a {spec.architecture} "
            f"({type(error).__name__}); save that network's state_dict with safetensors"
        ) from error
    network.eval().requires_grad_(False).to(default_device())
    # An embedding network ends in its embedding; a classifier's is before its last layer.
    layer = _last_linear(network) if spec.layer == "penultimate" else None
    return _batched(network, layer, spec.image_size)


def _outputs(weights: dict[str, Tensor]) -> int:
    """Return the outputs of the last layer: the rows of the last matrix of the file's order."""
    matrices = [value for name, value in weights.items() if value.ndim == 2]
    if not matrices:
        raise ValueError("no linear layer")
    heads = [v for n, v in weights.items() if v.ndim == 2 and _is_head(n)]
    return int((heads or matrices)[-1].shape[0])


def _is_head(name: str) -> bool:
    return name.split(".")[0] in ("fc", "classifier", "head", "heads")


def _last_linear(module: nn.Module) -> nn.Linear:
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise SpecError(
            f"a {type(module).__name__} has no linear layer, so it has no penultimate features; "
            "choose another architecture, or evaluation.image_metrics=false"
        )
    return linear[-1]


def _batched(module: nn.Module, layer: nn.Linear | None, image_size: int) -> Features:
    """Return a function that runs `module` and keeps what `layer` is given; None: the output."""
    device = next(module.parameters()).device

    @torch.no_grad()
    def features(images: Image8) -> Floats:
        kept: list[Tensor] = []

        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            kept.append(inputs[0])

        handle = None if layer is None else layer.register_forward_pre_hook(keep)
        try:
            for start in range(0, len(images), _BATCH):
                views = to_unit(images[start : start + _BATCH]).to(device)
                if views.shape[-1] != image_size:
                    views = functional.interpolate(
                        views, (image_size, image_size), mode="bilinear", antialias=True
                    )
                output = module(normalise(views).contiguous(memory_format=torch.channels_last))
                if layer is None:
                    kept.append(output)
        finally:
            if handle is not None:
                handle.remove()
        if not kept:
            return np.empty((0, layer.in_features if layer is not None else 0))
        return torch.cat(kept).float().cpu().numpy().astype(np.float64)

    return features
