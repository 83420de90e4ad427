"""Training a GAN prior: WGAN-GP (Gulrajani et al., 2017) on public images, as GMI does.

A step is `critic_steps` steps of the critic and one of the generator. Every draw is keyed by (seed,
step, row of the batch) and the losses are means over the global batch, so that the number of
processes changes the result by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from attacks.prior_gan import GanPrior, GanShape, Generator
from attacks.spec import GanSpec
from tasks.batchnorm import globalise_batchnorm
from tasks.classifiers import seeded
from tasks.device import default_device
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.evaluation import to_unit
from tasks.types import Image8

BETAS = (0.5, 0.999)
REPORT_EVERY = 20


@dataclass
class GanState:
    """All that is needed to go on after a step.

    Attributes:
        step: generator steps done.
        distances: the critic's estimate of the Wasserstein distance, every `REPORT_EVERY` steps.
        model: generator and critic.
        optimizers: of the generator and of the critic.
    """

    step: int = 0
    distances: list[float] = field(default_factory=list)
    model: dict[str, Tensor] = field(default_factory=dict)
    optimizers: tuple[dict[str, object], dict[str, object]] = ({}, {})


def build_gan(image_size: int, spec: GanSpec, seed: int) -> GanPrior:
    """Return an untrained GAN, its weights drawn by the seed.

    Raises:
        DataError: no GAN has that image size.
    """
    with seeded(Draws(seed, ("prior",)).child("init")):
        return GanPrior(
            GanShape(image_size=image_size, latent_size=spec.latent_size, width=spec.width)
        )


def train_gan(
    images: Image8,
    spec: GanSpec,
    seed: int,
    on_step: Callable[[int, int, float], None] | None = None,
    *,
    device: torch.device | None = None,
    rank: int = 0,
    world: int = 1,
    start: GanState | None = None,
    on_state: Callable[[GanState], None] | None = None,
) -> GanPrior:
    """Train a generator and its critic.

    Args:
        images: public images (n, s, s, 3); s is 16, 32, 64 or 128.
        spec: the settings.
        seed: of all draws.
        on_step: called with the step, the steps and the estimated distance of fakes from images.
        device: where to train; None takes the first GPU, or the CPU.
        rank: this process.
        world: number of processes; a process group must be there when above 1.
        start: go on after this state.
        on_state: called with each reported step; the state is filled when it is called.

    Returns:
        The GAN, frozen, on the CPU.

    Raises:
        DataError: no GAN has that image size.
        TrainingError: a loss is not finite, or a process would get less than two rows a batch.
    """
    if spec.batch_size < 2 * world:
        raise TrainingError(
            f"prior.gan.batch_size={spec.batch_size} for {world} processes; each needs at least 2 "
            "rows of a batch"
        )
    device = device or default_device()
    draws = Draws(seed, ("prior",))
    prior = build_gan(images.shape[1], spec, seed).to(device)
    state = GanState()
    if start is not None:
        state = GanState(start.step, list(start.distances))
        prior.load_state_dict(start.model)
    generator, critic = prior.generator, prior.critic
    if world > 1:
        _globalise_norms(generator, device)
    prior.train()
    of_generator, of_critic = (
        torch.optim.Adam(part.parameters(), lr=spec.learning_rate, betas=BETAS)
        for part in (generator, critic)
    )
    if start is not None:
        of_generator.load_state_dict(dict(start.optimizers[0]))
        of_critic.load_state_dict(dict(start.optimizers[1]))
    mine = np.arange(spec.batch_size)[rank::world]

    def fakes(*key: int) -> Tensor:
        z = draws.child("z", *key).normal(mine, spec.latent_size)
        made: Tensor = generator(torch.from_numpy(z).float().to(device))
        return made

    for step in range(state.step, spec.steps):
        distance = torch.zeros((), device=device)
        for turn in range(spec.critic_steps):
            rows = draws.child("rows", step, turn).integers(mine, 0, len(images))[:, 0]
            real = to_unit(images[rows]).to(device, memory_format=torch.channels_last)
            with torch.no_grad():
                fake = fakes(step, turn)
            mix = draws.child("mix", step, turn).uniform(mine)
            gap = critic(real).sum() - critic(fake).sum()
            penalty = gradient_penalty(critic, real, fake, torch.from_numpy(mix).to(real))
            loss = (spec.gradient_penalty * penalty.sum() - gap) / spec.batch_size
            _descend(of_critic, loss, critic.parameters(), world)
            distance = gap.detach() / spec.batch_size
        loss = -critic(fakes(step, spec.critic_steps)).sum() / spec.batch_size
        _descend(of_generator, loss, generator.parameters(), world)
        state.step = step + 1
        if state.step % REPORT_EVERY == 0 or state.step == spec.steps:
            value = _checked(distance + 0 * loss.detach(), state.step, spec, world)
            state.distances.append(value)
            if on_step is not None:
                on_step(state.step, spec.steps, value)
            if on_state is not None:
                state.model = prior.state_dict()
                state.optimizers = (of_generator.state_dict(), of_critic.state_dict())
                on_state(state)
    trained = build_gan(images.shape[1], spec, seed)
    trained.load_state_dict({name: value.cpu() for name, value in prior.state_dict().items()})
    return trained.eval().requires_grad_(False)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return (norm of the critic's gradient - 1) squared between each real image and a fake, (n,).

    Args:
        critic: images to opinions (n,).
        real: (n, 3, s, s).
        fake: (n, 3, s, s).
        mix: share of the real image, (n, 1).
    """
    between = torch.lerp(fake, real, mix[:, :, None, None]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # The floor keeps the root of a gradient of exactly nothing from a gradient without end.
    norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
    return (norm - 1).square()


def _descend(
    optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[Tensor], world: int
) -> None:
    """Take one step on the sum of all processes' losses."""
    optimizer.zero_grad(set_to_none=True)
    named = list(parameters)
    gradients = torch.autograd.grad(loss, named)
    if world > 1:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        gradients = tuple(part.view(p.shape) for part, p in zip(parts, named, strict=True))
    for parameter, gradient in zip(named, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def _globalise_norms(generator: Generator, device: torch.device) -> None:
    """Take the generator's batch statistics over all processes."""
    norms = generator.norms
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(norms)
    else:
        globalise_batchnorm(norms)


def _checked(distance: Tensor, step: int, spec: GanSpec, world: int) -> float:
    """Return the distance over all processes.

    Raises:
        TrainingError: it is not finite.
    """
    if world > 1:
        torch.distributed.all_reduce(distance)
    value = float(distance)
    if not math.isfinite(value):
        raise TrainingError(
            f"the GAN prior's loss is {value} at step {step} of {spec.steps}; lower "
            f"prior.gan.learning_rate={spec.learning_rate:g}, or train on other images"
        )
    return value
