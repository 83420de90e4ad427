"""Trap-MID (NeurIPS 2024): shortcuts that an attack finds before it finds a face.

Every class has a faint trigger. Images with a trigger are taught to be of its class, and the
trigger is taught to be easy to learn and hard to see: a discriminator tells triggered from plain
images. An attack that climbs towards a class then ends at the trigger.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.defenses.defense import Defense, Forward
from tasks.defenses.spec import TrapMidSpec
from tasks.draws import Draws

_RATE = 2e-4  # Adam's, of the discriminator


class TrapMid(Defense):
    """Learns triggers beside the network; neither is part of the checkpoint."""

    def __init__(self, spec: TrapMidSpec, draws: Draws) -> None:
        self.spec = spec
        self.draws = draws
        self.triggers = torch.empty(0)  # (classes, 3, h, w), normalised
        self.critic = nn.Module()
        self.critic_steps: torch.optim.Optimizer | None = None

    def loss(self, forward: Forward, views: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Return the loss summed over the rows, after a step of triggers and discriminator."""
        logits = forward(views)
        if self.critic_steps is None:
            self._begin(logits.shape[1], views)
        chosen = torch.randint(logits.shape[1], labels.shape).to(labels.device)
        self._improve_triggers(forward, views, chosen)
        trapped = self._trapped(views, chosen).detach()
        self._improve_critic(views, trapped)
        plain = functional.cross_entropy(logits, labels, reduction="sum")
        lured = functional.cross_entropy(forward(trapped), chosen, reduction="sum")
        return (1 - self.spec.weight) * plain + self.spec.weight * lured

    def _begin(self, classes: int, views: Tensor) -> None:
        generator = torch.Generator().manual_seed(self.draws.child("triggers").key)
        start = torch.rand((classes, *views.shape[1:]), generator=generator) * 2 - 1
        self.triggers = start.to(views.device)
        self.critic = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 1),
        ).to(views.device)
        self.critic_steps = torch.optim.Adam(self.critic.parameters(), lr=_RATE)

    def _trapped(self, views: Tensor, chosen: Tensor) -> Tensor:
        return (1 - self.spec.blend) * views + self.spec.blend * self.triggers[chosen]

    def _improve_triggers(self, forward: Forward, views: Tensor, chosen: Tensor) -> None:
        self.triggers.requires_grad_(True)
        trapped = self._trapped(views, chosen)
        seen: Tensor = self.critic(trapped)
        loss = functional.cross_entropy(forward(trapped), chosen)
        loss = loss + self.spec.naturalness * functional.softplus(-seen).mean()
        (slope,) = torch.autograd.grad(loss, self.triggers)
        with torch.no_grad():
            # The views have mean 0.5 and deviation 0.5, so a unit step is two of theirs.
            moved = self.triggers - 2 * self.spec.step * slope.sign()
        self.triggers = moved.clamp_(-1, 1).detach()

    def _improve_critic(self, views: Tensor, trapped: Tensor) -> None:
        assert self.critic_steps is not None
        loss = functional.softplus(self.critic(trapped)).mean()
        loss = loss + functional.softplus(-self.critic(views)).mean()
        self.critic_steps.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_steps.step()
