"""Training over several processes by Ray Train: the same `fit`, with checkpoints and resume.

Batch normalisation is taken over the global batch and the batches are those of a single process, so
that the model is the same but for rounding, whatever the number of processes and however often it
changes on the way.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from orchestrator.bundle import Bundle
from orchestrator.plan_tally import plan_digest
from orchestrator.train_group import Member, StateKeeper, train_group
from orchestrator.trial import PublicWeights, training_rows
from tasks.errors import MemoryEndedError, TrainingError
from tasks.spec import fingerprint
from tasks.training_spec import TrainingSpec
from tasks.types import Image8

if TYPE_CHECKING:
    from tasks.checkpoint import Checkpoint
    from tasks.training import TrainingState


def fit_distributed(
    images: Image8,
    recipe: pa.Table,
    num_classes: int,
    spec: TrainingSpec,
    seed: int,
    *,
    keeper: StateKeeper,
    cores_each: float = 1.0,
    public: PublicWeights | None = None,
) -> Checkpoint:
    """Train with `spec.workers` processes; takes up an interrupted training of the same keeper.

    Args:
        images: shared base images (n, s, s, 3); given once, every node has one copy.
        recipe: the plan.
        num_classes: outputs.
        spec: the settings.
        seed: of the experiment.
        keeper: of checkpoints; each training has a folder of its own below the keeper's.
        cores_each: of a process that has no GPU.
        public: what a defence by transfer starts from.

    Raises:
        TrainingError: the loss is not finite.
        ClusterError: too many processes were lost.
    """
    import ray

    from tasks.checkpoint import Checkpoint, CheckpointMeta
    from tasks.classifiers import build_model
    from tasks.draws import Draws

    own = replace(
        keeper, folder=keeper.folder / training_key(images, recipe, num_classes, spec, seed)
    )
    config = {
        "images": ray.put(images),
        "recipe": ray.put(recipe),
        "num_classes": num_classes,
        "spec": spec.model_dump(mode="json"),
        "seed": seed,
        "public": None if public is None else ray.put(public.state),
    }
    last, _ = train_group(
        train_loop,
        config,
        spec.workers,
        own,
        spec.epochs,
        what="the classifier",
        cores_each=cores_each,
    )
    state = decode_state(last)
    model = build_model(spec, num_classes, Draws(seed, ("train",)))
    model.load_state_dict(state.model)
    meta = CheckpointMeta(
        training=spec,
        num_classes=num_classes,
        image_size=images.shape[1],
        losses=tuple(state.losses),
        rows_at_once=own.rows_at_once(),
    )
    return Checkpoint(model, meta)


def training_key(
    images: Image8, recipe: pa.Table, num_classes: int, spec: TrainingSpec, seed: int
) -> str:
    """Return the identity of a training: all that decides its result, not who computes it.

    Its checkpoints lie under this name, so that none is taken up by a training that is another.
    """
    pixels = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    settings = spec.model_dump(mode="json", exclude={"workers"})
    return fingerprint([settings, num_classes, seed, plan_digest(recipe), pixels])


def train_loop(member: Member, config: dict[str, Any]) -> None:
    """Train as one of several processes."""
    import ray
    import torch
    from torch import nn

    from tasks.batchnorm import globalise_batchnorm
    from tasks.classifiers import build_model
    from tasks.draws import Draws
    from tasks.training import fit

    spec = TrainingSpec.model_validate(config["spec"])
    draws = Draws(config["seed"], ("train",))
    model = build_model(spec, config["num_classes"], draws)
    views, labels = training_rows(ray.get(config["images"]), ray.get(config["recipe"]))
    public = config.get("public")
    found = member.start()
    gpu = member.device.type == "cuda"
    if member.world > 1:
        model = (
            nn.SyncBatchNorm.convert_sync_batchnorm(model) if gpu else globalise_batchnorm(model)
        )
        model.to(member.device).to(memory_format=torch.channels_last)
        model = nn.parallel.DistributedDataParallel(
            model, device_ids=[member.device] if gpu else None, broadcast_buffers=False
        )

    def on_epoch(state: TrainingState) -> None:
        member.offer(state.epoch, lambda: encode_state(state), last=state.epoch == spec.epochs)

    rows = min(member.rows_at_once or spec.batch_size, spec.batch_size)
    if rows < 2 * member.world:
        raise TrainingError(
            f"training {spec.architecture} in {member.world} processes does not fit into memory, "
            "not even with 2 rows at once in each"
        )
    try:
        fit(
            model,
            views,
            labels,
            spec,
            draws,
            device=member.device,
            rank=member.rank,
            world=member.world,
            start=None if found is None else decode_state(found[1]),
            on_epoch=on_epoch,
            at_once=rows,
            public=None if public is None else ray.get(public),
        )
    except MemoryEndedError:
        member.halve(rows)


def encode_state(state: TrainingState) -> Bundle:
    """Return a state as files: weights and moments as safetensors, numbers as JSON; no pickle."""
    from safetensors.torch import save

    moments: dict[str, Any] = {}
    optimizer: dict[str, Any] = dict(state.optimizer)
    for index, values in optimizer["state"].items():
        moments |= {f"{index}.{name}": value.contiguous() for name, value in values.items()}
    numbers = {
        "epoch": state.epoch,
        "losses": state.losses,
        "groups": optimizer["param_groups"],
        "scaler": state.scaler,
    }
    return Bundle(
        {
            "model.safetensors": save({k: v.contiguous() for k, v in state.model.items()}),
            "optimizer.safetensors": save(moments),
            "state.json": json.dumps(numbers).encode(),
        }
    )


def decode_state(bundle: Bundle) -> TrainingState:
    """Read what `encode_state` wrote."""
    from safetensors.torch import load

    from tasks.training import TrainingState

    numbers = json.loads(bundle.files["state.json"])
    moments: dict[int, dict[str, Any]] = {}
    for key, value in load(bundle.files["optimizer.safetensors"]).items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    return TrainingState(
        epoch=numbers["epoch"],
        losses=numbers["losses"],
        model=load(bundle.files["model.safetensors"]),
        optimizer={"state": moments, "param_groups": numbers["groups"]},
        scaler=numbers["scaler"],
    )
