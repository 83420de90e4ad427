"""Training a GAN prior, by Ray Train where several processes or a GPU are at hand.

The same loop either way, on the same draws; over several processes the weights differ by rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attacks.spec import GanSpec
from orchestrator.bundle import Bundle
from orchestrator.placement import check_capacity
from orchestrator.publisher import publishing
from orchestrator.train_group import Member, StateKeeper, train_group
from tasks.spec import fingerprint
from tasks.types import Image8
from tasks.workers import several_workers

if TYPE_CHECKING:
    from attacks.prior_gan import GanPrior
    from attacks.prior_gan_training import GanState


def goes_through_ray(spec: GanSpec) -> bool:
    """Say whether Ray Train is used: for several processes, or where Ray has a GPU."""
    import ray

    if several_workers(spec.workers):
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
        storage: folder for the checkpoints of these images; it is removed at the end.
        on_step: called with step, steps and distance, where this process trains.

    Raises:
        TrainingError: the loss is not finite.
        ClusterError: the cluster is too small, or too many processes were lost.
    """
    from attacks.prior_gan_training import train_gan

    if not goes_through_ray(spec):
        return train_gan(images, spec, seed, on_step)
    prior = _fit_by_ray(images, spec, seed, storage)
    shutil.rmtree(storage, ignore_errors=True)
    return prior


def _fit_by_ray(images: Image8, spec: GanSpec, seed: int, storage: Path) -> GanPrior:
    import ray

    from attacks.prior_gan_training import build_gan

    check_capacity(spec.workers, "prior.gan.workers")
    folder = storage.absolute() / prior_training_key(spec, seed)
    config = {"images": ray.put(images), "spec": spec.model_dump(mode="json"), "seed": seed}
    with publishing() as publisher:
        keeper = StateKeeper(publisher, folder)
        last, _ = train_group(_loop, config, spec.workers, keeper, spec.steps, what="the prior")
    state = decode_state(last)
    prior = build_gan(images.shape[1], spec, seed)
    prior.load_state_dict(state.model)
    return prior.eval().requires_grad_(False)


def prior_training_key(spec: GanSpec, seed: int) -> str:
    """Return the identity of a training on the images of one storage folder."""
    return fingerprint([spec.model_dump(mode="json", exclude={"workers"}), seed])


def _loop(member: Member, config: dict[str, Any]) -> None:
    """Train as one of several processes."""
    import ray

    from attacks.prior_gan_training import train_gan

    spec = GanSpec.model_validate(config["spec"])
    images = ray.get(config["images"])
    found = member.start()

    def on_state(state: GanState) -> None:
        member.offer(state.step, lambda: encode_state(state), last=state.step == spec.steps)

    train_gan(
        images,
        spec,
        config["seed"],
        device=member.device,
        rank=member.rank,
        world=member.world,
        start=None if found is None else decode_state(found[1]),
        on_state=on_state,
    )


def encode_state(state: GanState) -> Bundle:
    """Return a state as files: weights and moments as safetensors, numbers as JSON; no pickle."""
    from safetensors.torch import save

    moments: dict[str, Any] = {}
    groups = []
    for part, optimizer in enumerate(state.optimizers):
        content: dict[str, Any] = dict(optimizer)
        groups.append(content["param_groups"])
        for index, values in content["state"].items():
            moments |= {f"{part}.{index}.{name}": v.contiguous() for name, v in values.items()}
    numbers = {"step": state.step, "distances": state.distances, "groups": groups}
    return Bundle(
        {
            "model.safetensors": save({k: v.contiguous() for k, v in state.model.items()}),
            "optimizers.safetensors": save(moments),
            "state.json": json.dumps(numbers).encode(),
        }
    )


def decode_state(bundle: Bundle) -> GanState:
    """Read what `encode_state` wrote."""
    from safetensors.torch import load

    from attacks.prior_gan_training import GanState

    numbers = json.loads(bundle.files["state.json"])
    moments: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    for key, value in load(bundle.files["optimizers.safetensors"]).items():
        part, index, name = key.split(".", 2)
        moments[int(part)].setdefault(int(index), {})[name] = value
    first, second = (
        {"state": moments[part], "param_groups": numbers["groups"][part]} for part in (0, 1)
    )
    return GanState(
        numbers["step"],
        numbers["distances"],
        load(bundle.files["model.safetensors"]),
        (first, second),
    )
