"""Training: one pure-torch loop, the same alone and as one of several processes.

Order and augmentation are keyed by (seed, epoch, row), the loss is the mean over the global batch,
and batch statistics are taken over it, so that the number of processes changes the result by
rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tasks.batches import batches_an_epoch, epoch_batches
from tasks.classifiers import seeded
from tasks.defenses.defense import Defense, Forward
from tasks.defenses.dp_sgd import fit_privately
from tasks.defenses.registry import make_defense
from tasks.device import autocast_dtype
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.pipelines.pipeline import Pipeline
from tasks.training_spec import TrainingSpec


@dataclass
class TrainingState:
    """All that is needed to go on after an epoch."""

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, object] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    """Of the loss, with float16; else empty."""


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    spec: TrainingSpec,
    draws: Draws,
    *,
    device: torch.device | None = None,
    rank: int = 0,
    world: int = 1,
    start: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] | None = None,
    pipeline: Pipeline | None = None,
) -> list[float]:
    """Train a classifier in place.

    AdamW with a one-cycle schedule, cross entropy, optional augmentation; and what the settings'
    defence makes of them.

    Args:
        model: takes normalised images; wrapped in DistributedDataParallel when world > 1.
        images: training images (n, 3, h, w), float in [0, 1].
        labels: (n,), int64.
        spec: the settings.
        draws: all randomness.
        device: where to train; the model is moved there.
        rank: this process.
        world: number of processes; a process group must be there when above 1.
        start: go on after this state.
        on_epoch: called after each epoch; the state is filled when it is called.
        pipeline: what a trainer does to views and loss beside the defence; its rows and pixels were
            chosen before.

    Returns:
        Mean training loss of each epoch.

    Raises:
        TrainingError: the loss is not finite, a process would get less than two rows a batch, or
            the defence cannot be trained so.
    """
    device = device or images.device
    if min(len(labels), spec.batch_size) < 2 * world:
        raise TrainingError(
            f"{len(labels)} training rows in batches of {spec.batch_size} for {world} processes; "
            "each process needs at least 2 rows of a batch"
        )
    if spec.defense.name == "dp-sgd":
        if pipeline is not None:
            raise TrainingError(
                "defence dp-sgd has a training loop of its own, which other trainers cannot change;"
                " try them on a trial with another training.defense"
            )
        done = TrainingState()

        def count(epoch: int) -> None:
            done.epoch = epoch
            if on_epoch is not None:
                on_epoch(done)

        return fit_privately(
            model, images, labels, spec, draws, device=device, schedule=one_cycle, on_epoch=count
        )
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    dtype = autocast_dtype(spec.precision, device)
    steps = batches_an_epoch(len(labels), spec.batch_size)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    defense = make_defense(spec.defense, plain, draws.child("defense"))
    pipeline = pipeline or Pipeline()

    def change(views: Tensor, rows: np.ndarray, draws: Draws) -> Tensor:
        return defense.views(pipeline.views(views, rows, draws), rows, draws)

    def forward(views: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits: Tensor = model(views)
        return logits.float()

    # Gradients below float16's range would be zero: the loss is scaled up, the step scaled back.
    # All processes see the same sum of gradients, so that they scale and skip alike.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    state = TrainingState()
    if start is not None:
        state = TrainingState(start.epoch, list(start.losses))
        plain.load_state_dict(start.model)
        optimizer.load_state_dict(dict(start.optimizer))
        scaler.load_state_dict(dict(start.scaler))
    else:
        pipeline.begin(plain)
        defense.begin(plain)

    for epoch in range(state.epoch, spec.epochs):
        model.train()
        defense.start_epoch(plain)
        epoch_draws = draws.child("epoch", epoch)
        total = torch.zeros((), device=device)
        with seeded(epoch_draws.child("dropout", rank)):
            batches = epoch_batches(
                images,
                labels,
                spec.batch_size,
                epoch_draws,
                augment=spec.augment,
                rank=rank,
                world=world,
                change=change,
            )
            for batch, (views, wanted, rows) in enumerate(batches):
                progress = (epoch * steps + batch) / (spec.epochs * steps)
                rate = one_cycle(progress)
                for group in optimizer.param_groups:
                    group["lr"] = spec.learning_rate * rate
                views = ((views - 0.5) / 0.5).to(device, memory_format=torch.channels_last)
                loss = pipeline.loss(
                    partial(_loss_at, defense, forward, progress),
                    views,
                    wanted.to(device),
                    epoch_draws.child("trainer", batch),
                )
                # DistributedDataParallel averages over processes: times `world` makes it a sum.
                scaler.scale(loss * (world / rows)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                total += loss.detach() * world / rows
        if world > 1:
            torch.distributed.all_reduce(total)
            total /= world
        mean = float(total) / steps
        if not math.isfinite(mean):
            raise TrainingError(
                f"the training loss is {mean} after epoch {epoch + 1} of {spec.epochs}; lower "
                f"training.learning_rate={spec.learning_rate:g}, or set training.precision=float32"
            )
        state.epoch = epoch + 1
        state.losses.append(mean)
        if on_epoch is not None:
            state.model = plain.state_dict()
            state.optimizer = optimizer.state_dict()
            state.scaler = scaler.state_dict()
            on_epoch(state)
    return state.losses


def _loss_at(
    defense: Defense, forward: Forward, progress: float, views: Tensor, labels: Tensor
) -> Tensor:
    return defense.loss(forward, views, labels, progress)


def one_cycle(progress: float, warm_up: float = 0.25) -> float:
    """Return the learning rate's share of its peak: half a cosine up, half a cosine down.

    (Smith and Topin, 2018.) A function of the progress in [0, 1) alone, so resuming needs no state.
    """
    if progress < warm_up:
        return 0.04 + 0.96 * (0.5 - 0.5 * math.cos(math.pi * progress / warm_up))
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up))
