"""Training over several processes by Ray Train: the same `fit`, with checkpoints and resume.

Batch normalisation is taken over the global batch and the batches are those of a single process, so
that the model is the same but for rounding.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orchestrator.trial import training_rows
from tasks.errors import ClusterError, TrainingError
from tasks.training_spec import TrainingSpec
from tasks.types import Image8

if TYPE_CHECKING:
    from tasks.checkpoint import Checkpoint
    from tasks.training import TrainingState

EPOCHS_BETWEEN_CHECKPOINTS = 5
"""Each report to Ray Train waits for all workers: a checkpoint after every epoch would cost more
than the epochs of a small net."""


def fit_distributed(
    images: Image8,
    recipe: pa.Table,
    num_classes: int,
    spec: TrainingSpec,
    seed: int,
    *,
    storage: str,
) -> Checkpoint:
    """Train with `spec.workers` processes; takes up an interrupted training of the same storage.

    Args:
        images: shared base images (n, s, s, 3).
        recipe: the plan.
        num_classes: outputs.
        spec: the settings.
        seed: of the experiment.
        storage: folder for Ray Train's checkpoints.

    Raises:
        TrainingError: the loss is not finite.
        ClusterError: the workers died more often than retries allow.
    """
    import ray
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    from tasks.checkpoint import Checkpoint, CheckpointMeta
    from tasks.classifiers import build_model
    from tasks.draws import Draws

    gpus = ray.cluster_resources().get("GPU", 0) >= spec.workers
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "images": ray.put(images),
            "recipe": ray.put(recipe),
            "num_classes": num_classes,
            "spec": spec.model_dump(mode="json"),
            "seed": seed,
        },
        # The default lets a lost worker wait for half an hour.
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=60),
        scaling_config=train.ScalingConfig(num_workers=spec.workers, use_gpu=gpus),
        run_config=train.RunConfig(
            name="train",
            storage_path=str(Path(storage).absolute()),
            failure_config=train.FailureConfig(max_failures=2),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        sentence = training_error_of(error)
        if sentence is not None:
            raise TrainingError(sentence) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ClusterError(
            f"training over {spec.workers} workers did not finish ({reason}); resume to go on from "
            "its last checkpoint"
        ) from error
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as folder:
        state = _read_state(Path(folder))
    model = build_model(spec, num_classes, Draws(seed, ("train",)))
    model.load_state_dict(state.model)
    meta = CheckpointMeta(
        training=spec,
        num_classes=num_classes,
        image_size=images.shape[1],
        losses=tuple(state.losses),
    )
    return Checkpoint(model, meta)


def _worker(config: dict[str, Any]) -> None:
    """Train as one of several processes."""
    import ray
    import torch
    from ray import train
    from torch import nn

    from tasks.batchnorm import globalise_batchnorm
    from tasks.classifiers import build_model
    from tasks.draws import Draws
    from tasks.training import fit

    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    spec = TrainingSpec.model_validate(config["spec"])
    draws = Draws(config["seed"], ("train",))
    model = build_model(spec, config["num_classes"], draws)
    if world > 1:
        model = (
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
            if device.type == "cuda"
            else globalise_batchnorm(model)
        )
        model.to(device).to(memory_format=torch.channels_last)
        model = nn.parallel.DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )
    views, labels = training_rows(ray.get(config["images"]), ray.get(config["recipe"]))

    start = None
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = _read_state(Path(folder))

    def on_epoch(state: TrainingState) -> None:
        if state.epoch % EPOCHS_BETWEEN_CHECKPOINTS and state.epoch < spec.epochs:
            return
        metrics = {"epoch": state.epoch, "loss": state.losses[-1]}
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                _write_state(Path(folder), state)
                saved = train.Checkpoint.from_directory(folder)
            train.report(metrics, checkpoint=saved)

    fit(
        model,
        views,
        labels,
        spec,
        draws,
        device=device,
        rank=rank,
        world=world,
        start=start,
        on_epoch=on_epoch,
    )


def _write_state(folder: Path, state: TrainingState) -> None:
    """Write weights and optimiser moments as safetensors, numbers as JSON; never pickle."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in state.model.items()}, folder / "model.safetensors")
    moments: dict[str, Any] = {}
    optimizer: dict[str, Any] = dict(state.optimizer)
    for index, values in optimizer["state"].items():
        moments |= {f"{index}.{name}": value.contiguous() for name, value in values.items()}
    save_file(moments, folder / "optimizer.safetensors")
    numbers = {
        "epoch": state.epoch,
        "losses": state.losses,
        "groups": optimizer["param_groups"],
    }
    (folder / "state.json").write_text(json.dumps(numbers))


def _read_state(folder: Path) -> TrainingState:
    from safetensors.torch import load_file

    from tasks.training import TrainingState

    numbers = json.loads((folder / "state.json").read_text())
    moments: dict[int, dict[str, Any]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    return TrainingState(
        epoch=numbers["epoch"],
        losses=numbers["losses"],
        model=load_file(folder / "model.safetensors"),
        optimizer={"state": moments, "param_groups": numbers["groups"]},
    )


def training_error_of(error: BaseException) -> str | None:
    """Return the sentence of a TrainingError among an error and its causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TrainingError):
            return str(seen)
        for inner in getattr(seen, "worker_failures", {}).values():
            if found := training_error_of(inner):
                return found
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None
