"""Training: one pure-torch loop, the same alone and as one of several processes.

Order and augmentation are keyed by (seed, epoch, row), the loss is the mean over the global batch,
and batch statistics are taken over it, so that the number of processes changes the result by
rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tasks.batches import batches_an_epoch, epoch_batches
from tasks.classifiers import normalise, seeded
from tasks.defenses.defense import Defense, Forward
from tasks.defenses.dp_sgd import AT_ONCE, fit_privately
from tasks.defenses.registry import make_defense
from tasks.device import autocast_dtype
from tasks.draws import Draws
from tasks.errors import MemoryEndedError, TrainingError
from tasks.memory import halving
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
    at_once: int | None = None,
    on_halved: Callable[[int], None] | None = None,
    public: Mapping[str, Tensor] | None = None,
) -> list[float]:
    """Train a classifier in place.

    AdamW with a one-cycle schedule, cross entropy, optional augmentation; and what the settings'
    defence makes of them.

    A batch that does not fit into memory is worked on in parts, half as many rows at once each
    time, from the beginning: the step is still over the whole batch. Without layers that look at
    a batch as a whole the result is the same but for rounding; batch normalisation, dropout and
    trainers that mix images see the parts, and the result is another one. One of several processes
    cannot halve alone: it raises, and whoever starts them again says how many rows at once.

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
        at_once: rows of a batch, over all processes, that are worked on at once; None is all.
        on_halved: called with the rows at once whenever there have to be fewer.
        public: state of a network that learnt public people, for a defence that starts from it.

    Returns:
        Mean training loss of each epoch.

    Raises:
        TrainingError: the loss is not finite, a process would get less than two rows a batch, or
            the defence cannot be trained so.
        MemoryEndedError: not even two rows at once fit into memory; or, in one of several
            processes, not so many.
    """
    plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    # On the processor: what is short may be a GPU's memory.
    fresh = {name: value.detach().cpu().clone() for name, value in plain.state_dict().items()}
    rows = min(at_once or spec.batch_size, spec.batch_size)
    too_large = MemoryEndedError(
        f"training {spec.architecture} does not fit into memory with {rows} rows at once"
        if world > 1
        else f"training {spec.architecture} does not fit into memory, not even with 2 rows at once;"
        " use smaller images, a narrower network, or a machine with more memory"
    )
    tried = False

    def attempt(rows: int) -> list[float]:
        nonlocal tried
        if tried:
            plain.load_state_dict(fresh)
            if on_halved is not None:
                on_halved(rows)
        tried = True
        return _fit(
            model,
            images,
            labels,
            spec,
            draws,
            device=device or images.device,
            rank=rank,
            world=world,
            start=start,
            on_epoch=on_epoch,
            pipeline=pipeline,
            at_once=rows,
            public=public,
        )

    return halving(attempt, rows, rows if world > 1 else 2, too_large)[0]


def _fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    spec: TrainingSpec,
    draws: Draws,
    *,
    device: torch.device,
    rank: int,
    world: int,
    start: TrainingState | None,
    on_epoch: Callable[[TrainingState], None] | None,
    pipeline: Pipeline | None,
    at_once: int,
    public: Mapping[str, Tensor] | None,
) -> list[float]:
    """Train with so many rows at once."""
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
            model,
            images,
            labels,
            spec,
            draws,
            device=device,
            schedule=one_cycle,
            on_epoch=count,
            at_once=min(AT_ONCE, at_once),
        )
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    dtype = autocast_dtype(spec.precision, device)
    steps = batches_an_epoch(len(labels), spec.batch_size)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    defense = make_defense(spec.defense, plain, draws.child("defense"), public)
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
                shares = parts_of(len(views), rows, world, at_once)
                for number, share in enumerate(shares):
                    own = epoch_draws.child("trainer", batch)
                    last = share.stop == len(views)
                    # The gradients of the parts add up to the batch's; processes meet at the last.
                    with nullcontext() if last or world == 1 else _unmet(model):
                        loss = pipeline.loss(
                            partial(_loss_at, defense, forward, progress),
                            normalise(views[share]).to(device, memory_format=torch.channels_last),
                            wanted[share].to(device),
                            own if len(shares) == 1 else own.child("part", number),
                        )
                        # DistributedDataParallel averages over processes: times `world` makes it a
                        # sum.
                        scaler.scale(loss * (world / rows)).backward()
                    total += loss.detach() * world / rows
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
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


def parts_of(own: int, rows: int, world: int, at_once: int) -> list[slice]:
    """Return the parts of one process's share of a batch, the same number in every process.

    Args:
        own: rows of the share.
        rows: of the whole batch.
        world: number of processes.
        at_once: rows that all processes together work on at once.
    """
    count = min(-(-rows // at_once), max(1, rows // world // 2))
    ends = [own * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


def _unmet(model: nn.Module) -> AbstractContextManager[None]:
    """Return a block in which processes do not exchange gradients."""
    assert isinstance(model, nn.parallel.DistributedDataParallel)
    unmet: AbstractContextManager[None] = model.no_sync()
    return unmet


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
