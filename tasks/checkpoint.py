"""A trained classifier on disk: `model.safetensors` and `meta.json`.

Saving over one that is there may be killed at any moment: either the old one or the new one is
read afterwards, whole. All new files are first written beside the old ones as `.NAME.next`. From
when `.meta.json.next` has its name, last of all, the new checkpoint is the one that is read: each
of its files under either of its two names. Then the old ones are replaced, `meta.json` at last, and
what a kill left undone of that is done before the next one is saved.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from tasks.classifiers import TorchClassifier, build_model
from tasks.defenses.accounting import Guarantee
from tasks.device import autocast_dtype
from tasks.draws import Draws
from tasks.errors import DataError, MissingDataError
from tasks.serving.output import make_output
from tasks.serving.spec import ServingSpec
from tasks.spec import Spec
from tasks.training_spec import TrainingSpec

WEIGHTS, OUTPUT, META = "model.safetensors", "output.safetensors", "meta.json"
"""The weights, those of an output defence where there is one, and what both mean."""


class CheckpointMeta(Spec):
    """What is needed to build the network again, and what it was trained on."""

    training: TrainingSpec
    num_classes: int = Field(ge=2)
    image_size: int = Field(ge=1)
    losses: tuple[float, ...] = ()
    trained_on: dict[str, Any] = Field(default_factory=dict)
    serving: ServingSpec = ServingSpec()
    guarantee: Guarantee | None = Field(None, description="Of DP-SGD; others have none.")
    rows_at_once: int | None = Field(
        None, description="Where a batch did not fit into memory: the parts that did."
    )
    weights_sha256: str = Field("", description="Of model.safetensors; empty in older files.")


@dataclass(frozen=True)
class Checkpoint:
    """Weights with their meaning."""

    module: nn.Module
    meta: CheckpointMeta
    output: nn.Module | None = None

    def classifier(self, device: torch.device | None = None) -> TorchClassifier:
        """Return the trained network behind the classifier protocol."""
        place = device or torch.device("cpu")
        return TorchClassifier(
            self.module.to(device=place, memory_format=torch.channels_last),  # type: ignore[call-overload]
            self.meta.num_classes,
            self.meta.image_size,
            autocast_dtype(self.meta.training.precision, place),
            None if self.output is None else self.output.to(place),
        )

    def save(self, folder: Path) -> Path:
        """Write the files into `folder` and return it.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        _finish(folder)
        weights = {name: value.contiguous() for name, value in self.module.state_dict().items()}
        # Written by us, since safetensors' own error for a full disk does not say in its type that
        # it is one.
        data = save(weights)
        _write_whole(_next(folder / WEIGHTS), data)
        output = _next(folder / OUTPUT)
        output.unlink(missing_ok=True)
        if self.output is not None:
            _write_whole(output, save(self.output.state_dict()))
        meta = self.meta.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
        text = json.dumps(meta.model_dump(mode="json"), indent=2)
        _write_whole(_next(folder / META), f"{text}\n".encode())
        _finish(folder)
        return folder


def _next(path: Path) -> Path:
    """Return the name of a file that is to replace another."""
    return path.with_name(f".{path.name}.next")


def _finish(folder: Path) -> None:
    """Put the files of a checkpoint that was written whole in place of the one before it."""
    if not _next(folder / META).exists():
        return
    for name in (WEIGHTS, OUTPUT, META):
        with suppress(FileNotFoundError):
            _next(folder / name).replace(folder / name)


def _newest(folder: Path, name: str) -> Path:
    """Return where a file of the checkpoint that counts is."""
    coming = _next(folder / name)
    return coming if _next(folder / META).exists() and coming.exists() else folder / name


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears under its name when all of it is written."""
    partial = path.with_name(f".{path.name.lstrip('.')}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        MissingDataError: the folder holds none.
        DataError: a file is damaged, or the weights do not fit the network.
    """
    meta_file, weights_file = _newest(folder, META), _newest(folder, WEIGHTS)
    for file, name in ((meta_file, META), (weights_file, WEIGHTS)):
        if not file.is_file():
            raise MissingDataError(
                f"{folder} holds no checkpoint: {name} is missing; name a folder that "
                "`dcdctl train` wrote"
            )
    try:
        meta = CheckpointMeta.model_validate_json(meta_file.read_text())
        if meta.weights_sha256 and meta.weights_sha256 != _sha256(weights_file):
            raise DataError(
                f"the checkpoint {folder} is damaged: its weights are not those that meta.json "
                "names; train it again"
            )
        module = build_model(meta.training, meta.num_classes, Draws(0))
        module.load_state_dict(load_file(weights_file))
        output = make_output(meta.serving.defense, meta.num_classes)
        if output is not None:
            output.load_state_dict(load_file(_newest(folder, OUTPUT)))
            output.eval().requires_grad_(False)
    except (ValidationError, SafetensorError, RuntimeError, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"the checkpoint {folder} cannot be read ({type(error).__name__}); train it again"
        ) from error
    return Checkpoint(module, meta, output)
