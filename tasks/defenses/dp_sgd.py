"""DP-SGD (Abadi et al., CCS 2016): clipped gradients of single images, plus noise, by Opacus.

Rows of a step are Poisson-sampled, as the accountant assumes. Sampling and noise are keyed by the
seed, so that a run can be repeated; whoever knows the seed knows the noise, so keep the seed of a
model that you release.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.batches import augment_views
from tasks.classifiers import normalise, seeded
from tasks.defenses.accounting import guarantee_of
from tasks.defenses.networks import GroupNorm
from tasks.defenses.spec import DpSgdSpec
from tasks.draws import Draws
from tasks.errors import SpecError, TrainingError
from tasks.training_spec import TrainingSpec

if TYPE_CHECKING:
    from opacus import GradSampleModule

AT_ONCE = 64
"""Images whose gradients are held at a time; the step is over all that were sampled."""


def fit_privately(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    spec: TrainingSpec,
    draws: Draws,
    *,
    device: torch.device,
    schedule: Callable[[float], float],
    on_epoch: Callable[[int], None] | None = None,
    at_once: int = AT_ONCE,
) -> list[float]:
    """Train a classifier in place by DP-SGD, in float32.

    Args:
        model: without batch normalisation; see `networks.replace_batchnorm`.
        images: training images (n, 3, h, w), float in [0, 1].
        labels: (n,), int64.
        spec: the settings; its defence is DP-SGD.
        draws: all randomness.
        device: where to train.
        schedule: share of the peak learning rate at a progress in [0, 1).
        on_epoch: called with the number of epochs done.
        at_once: images whose gradients are held at a time; changes the rounding alone.

    Returns:
        Mean training loss of each epoch.

    Raises:
        SpecError: the network has a layer that mixes images.
        TrainingError: the budget cannot be kept, or the loss is not finite.
    """
    from opacus.optimizers import DPOptimizer
    from opacus.validators import ModuleValidator

    settings, promised = spec.defense, guarantee_of(spec, len(labels))
    assert isinstance(settings, DpSgdSpec)
    assert promised is not None
    model.to(device).train()
    unfit = ModuleValidator.validate(model)
    if unfit:
        raise SpecError(
            f"dp-sgd cannot train {type(model).__name__}: {str(unfit[0]).splitlines()[0]}; choose "
            "another training.architecture"
        )
    rate = settings.learning_rate or spec.learning_rate
    plain: torch.optim.Optimizer
    if settings.optimiser == "sgd":
        plain = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    else:
        plain = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=spec.weight_decay)
    wrapped = with_image_gradients(model)
    optimizer = DPOptimizer(
        plain,
        noise_multiplier=promised.noise_multiplier,
        max_grad_norm=settings.max_grad_norm,
        expected_batch_size=max(1, round(promised.sample_rate * len(labels))),
        loss_reduction="mean",
        generator=torch.Generator(device).manual_seed(draws.child("noise").key),
    )
    epochs = spec.passes
    a_epoch = promised.steps // epochs
    losses: list[float] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first layer's inputs need no gradient
            for epoch in range(epochs):
                wrapped.train()
                total, seen = 0.0, 0
                with seeded(draws.child("epoch", epoch).child("dropout", 0)):
                    for step in range(a_epoch):
                        for group in optimizer.param_groups:
                            group["lr"] = rate * schedule((epoch * a_epoch + step) / promised.steps)
                        rows = _sampled(draws, epoch, step, promised.sample_rate, len(labels))
                        total += _step(
                            wrapped,
                            optimizer,
                            _views(images, rows, spec, draws.child("epoch", epoch, "step", step)),
                            labels[torch.from_numpy(rows)],
                            device,
                            at_once,
                        )
                        seen += len(rows)
                losses.append(total / max(1, seen))
                if not math.isfinite(losses[-1]):
                    raise TrainingError(
                        f"the training loss is {losses[-1]} after epoch {epoch + 1} of {epochs}; "
                        f"lower training.defense.learning_rate={rate:g}"
                    )
                if on_epoch is not None:
                    on_epoch(epoch + 1)
    finally:
        wrapped.to_standard_module()
    return losses


def with_image_gradients(model: nn.Module) -> GradSampleModule:
    """Return the model, which keeps each image's gradient of a summed loss in `grad_sample`."""
    from opacus import GradSampleModule
    from opacus.grad_sample import register_grad_sampler
    from opacus.grad_sample.group_norm import compute_group_norm_grad_sample

    register_grad_sampler(GroupNorm)(compute_group_norm_grad_sample)  # layers go by exact type
    return GradSampleModule(model, loss_reduction="sum")


def _sampled(
    draws: Draws, epoch: int, step: int, rate: float, rows: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the rows of a step: each with the same chance, on its own."""
    source = draws.child("epoch", epoch, "poisson", step)
    return np.flatnonzero(source.uniform(np.arange(rows))[:, 0] < rate)


def _views(
    images: Tensor,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    spec: TrainingSpec,
    draws: Draws,
) -> Tensor:
    views = images[torch.from_numpy(rows)]
    if spec.augment and len(rows):
        views = augment_views(views, draws.child("view").uniform(rows, 7))
    return normalise(views)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    labels: Tensor,
    device: torch.device,
    at_once: int,
) -> float:
    """Take one step over all sampled images, a few at a time; return the sum of their losses."""
    total = 0.0
    starts = range(0, max(1, len(labels)), at_once)
    for start in starts:
        part = slice(start, start + at_once)
        logits = model(views[part].to(device))
        loss = functional.cross_entropy(logits, labels[part].to(device), reduction="sum")
        loss.backward()
        optimizer.signal_skip_step(do_skip=start != starts[-1])  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach())
    return total
