"""Training a GAN prior, by Ray Train where several processes or a GPU are at hand.

The same loop either way, on the same draws; over several processes the weights differ by rounding.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attacks.spec import GanSpec
from orchestrator.distributed import training_error_of
from tasks.errors import ClusterError, TrainingError
from tasks.types import Image8

if TYPE_CHECKING:
    from attacks.prior_gan import GanPrior
    from attacks.prior_gan_training import GanState

STEPS_BETWEEN_CHECKPOINTS = 100
"""Of the generator; each checkpoint holds both networks and their optimisers."""


def goes_through_ray(spec: GanSpec) -> bool:
    """Say whether Ray Train is used: for several processes, or where Ray has a GPU."""
    import ray

    if spec.workers > 1:
        return True
    return bool(ray.is_initialized() and ray.cluster_resources().get("GPU", 0) >= 1)


def fit_gan(
    images: Image8,
    spec: GanSpec,
    seed: int,
    *,
    storage: Path,
    on_step: Callable[[int, int, float], None] | None = None,
) -> GanPrior:
    """Train a GAN prior.

    Args:
        images: public images (n, s, s, 3).
        spec: the settings.
        seed: of the experiment.
        storage: folder for Ray Train's checkpoints; it is removed at the end.
        on_step: called with step, steps and distance, where this process trains.

    Raises:
        TrainingError: the loss is not finite.
        ClusterError: the workers died more often than retries allow.
    """
    from attacks.prior_gan_training import train_gan

    if not goes_through_ray(spec):
        return train_gan(images, spec, seed, on_step)
    prior = _fit_by_ray(images, spec, seed, storage)
    shutil.rmtree(storage, ignore_errors=True)
    return prior


def _fit_by_ray(images: Image8, spec: GanSpec, seed: int, storage: Path) -> GanPrior:
    import ray
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    from attacks.prior_gan_training import build_gan

    gpus = ray.cluster_resources().get("GPU", 0) >= spec.workers
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "images": ray.put(images),
            "spec": spec.model_dump(mode="json"),
            "seed": seed,
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=60),
        scaling_config=train.ScalingConfig(num_workers=spec.workers, use_gpu=gpus),
        run_config=train.RunConfig(
            name="prior",
            storage_path=str(storage.absolute()),
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
            f"training the prior over {spec.workers} workers did not finish ({reason}); the same "
            "command goes on from its last checkpoint"
        ) from error
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as folder:
        state = read_state(Path(folder))
    prior = build_gan(images.shape[1], spec, seed)
    prior.load_state_dict(state.model)
    return prior.eval().requires_grad_(False)


def _worker(config: dict[str, Any]) -> None:
    """Train as one of several processes."""
    import ray
    import torch
    from ray import train

    from attacks.prior_gan_training import train_gan

    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    spec = GanSpec.model_validate(config["spec"])
    start = None
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = read_state(Path(folder))

    def on_state(state: GanState) -> None:
        if state.step % STEPS_BETWEEN_CHECKPOINTS and state.step < spec.steps:
            return
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                write_state(Path(folder), state)
                saved = train.Checkpoint.from_directory(folder)
            train.report({"step": state.step, "distance": state.distances[-1]}, checkpoint=saved)

    train_gan(
        ray.get(config["images"]),
        spec,
        config["seed"],
        device=device,
        rank=rank,
        world=world,
        start=start,
        on_state=on_state,
    )


def write_state(folder: Path, state: GanState) -> None:
    """Write weights and moments as safetensors, numbers as JSON; never pickle."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in state.model.items()}, folder / "model.safetensors")
    moments: dict[str, Any] = {}
    groups = []
    for part, optimizer in enumerate(state.optimizers):
        content: dict[str, Any] = dict(optimizer)
        groups.append(content["param_groups"])
        for index, values in content["state"].items():
            moments |= {f"{part}.{index}.{name}": v.contiguous() for name, v in values.items()}
    save_file(moments, folder / "optimizers.safetensors")
    numbers = {"step": state.step, "distances": state.distances, "groups": groups}
    (folder / "state.json").write_text(json.dumps(numbers))


def read_state(folder: Path) -> GanState:
    """Read what `write_state` wrote."""
    from safetensors.torch import load_file

    from attacks.prior_gan_training import GanState

    numbers = json.loads((folder / "state.json").read_text())
    moments: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    for key, value in load_file(folder / "optimizers.safetensors").items():
        part, index, name = key.split(".", 2)
        moments[int(part)].setdefault(int(index), {})[name] = value
    first, second = (
        {"state": moments[part], "param_groups": numbers["groups"][part]} for part in (0, 1)
    )
    return GanState(
        numbers["step"],
        numbers["distances"],
        load_file(folder / "model.safetensors"),
        (first, second),
    )
