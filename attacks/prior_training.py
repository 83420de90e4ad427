"""Training the decoder prior: a variational autoencoder on public images, its decoder kept.

An attack can show a face only as well as its prior can show one that it has never seen, which is
what an autoencoder is trained for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.prior import DecoderPrior, DecoderSpec, decoder_channels
from attacks.spec import PriorSpec
from tasks.classifiers import seeded
from tasks.device import autocast_dtype, default_device
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.evaluation import to_unit
from tasks.types import Image8

BATCH = 32
LEARNING_RATE = 3e-3
GRADIENT_NORM = 100.0
KL_WARM_UP = 0.1
SCALES = (2, 4)
"""The loss is L1 at full size and, weighted by the scale, after averaging over these blocks."""

WEIGHTS = Path(__file__).parent / "weights"


def shipped_prior_path(image_size: int) -> Path | None:
    """Return the shipped prior of the built-in faces, None where there is none of that size."""
    path = WEIGHTS / f"builtin-faces-{image_size}.safetensors"
    return path if path.is_file() else None


def train_prior(
    images: Image8,
    spec: PriorSpec,
    seed: int,
    on_step: Callable[[int, int, float], None] | None = None,
) -> DecoderPrior:
    """Train a prior.

    Args:
        images: public images (n, s, s, 3); s is 16, 32, 64, 128 or 256.
        spec: steps, latent size, weight of the KL divergence.
        seed: of all draws.
        on_step: called with the step, the steps and the loss.

    Returns:
        The decoder with its mapping, frozen.

    Raises:
        DataError: no decoder has that image size.
        TrainingError: the loss is not finite.
    """
    device = default_device()
    draws = Draws(seed, ("prior",))
    size = images.shape[1]
    with seeded(draws.child("init")):
        prior = DecoderPrior(
            DecoderSpec(
                image_size=size,
                latent_size=spec.latent_size,
                channels=decoder_channels(size),
            )
        )
        encoder = _Encoder(size, spec.latent_size).to(memory_format=torch.channels_last)
    prior.to(device)
    encoder.to(device)
    parameters = [*prior.parameters(), *encoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
    dtype = autocast_dtype("auto", device)
    for step in range(spec.steps):
        rows = draws.child("rows", step).integers(np.arange(BATCH), 0, len(images))[:, 0]
        real = to_unit(images[rows]).to(device, memory_format=torch.channels_last)
        if step % 2:
            real = real.flip(3)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step, spec.steps)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            mean, log_variance = encoder(real * 2 - 1)
        mean, log_variance = mean.float(), log_variance.float().clamp(-8, 4)
        noise = draws.child("noise", step).normal(np.arange(BATCH), spec.latent_size)
        z = mean + torch.from_numpy(noise).to(mean) * (log_variance / 2).exp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        # The divergence comes in slowly: from the start it would empty the latents.
        weight = spec.kl_weight * min(1.0, step / (KL_WARM_UP * spec.steps))
        loss = (_distance(prior(z), real) + weight * divergence).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
        if on_step is not None and (step + 1) % 20 == 0 or step + 1 == spec.steps:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the prior's loss is {value} at step {step + 1} of {spec.steps}; train on "
                    "other images, or on more of them"
                )
            if on_step is not None:
                on_step(step + 1, spec.steps, value)
    with torch.no_grad():
        z = torch.from_numpy(draws.child("mean").normal(np.arange(10_000), spec.latent_size))
        prior.w_mean.copy_(prior.map(z.float().to(device)).mean(0))
    return prior.cpu().eval().requires_grad_(False)


def _distance(fake: Tensor, real: Tensor) -> Tensor:
    """Return the summed L1 distance at several scales, (n,)."""
    total = (fake - real).abs().sum((1, 2, 3))
    for scale in SCALES:
        gap = functional.avg_pool2d(fake, scale) - functional.avg_pool2d(real, scale)
        total = total + scale * gap.abs().sum((1, 2, 3))
    return total


def _schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: 2 % warm-up, then a half cosine."""
    warm = min(1.0, (step + 1) / (0.02 * steps + 1))
    return warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))


class _Encoder(nn.Module):
    """Images (n, 3, s, s) in [-1, 1] to mean and log-variance of z, each (n, latent)."""

    def __init__(self, size: int, latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, outputs = 3, 32
        while size > 4:
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
            inputs, outputs, size = outputs, min(2 * outputs, 96), size // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(16 * inputs, 256), nn.LeakyReLU(0.2), nn.Linear(256, 2 * latent)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.head(self.body(images)).chunk(2, dim=1)
        return mean, log_variance
