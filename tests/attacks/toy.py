"""A toy world for the contract of all attacks: colours as people, a linear prior of colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attacks.attack import AttackResult
from attacks.knowledge import Knowledge
from attacks.presets import ADAPTIVE
from attacks.prior import State
from attacks.registry import ATTACKS, make_attack
from attacks.spec import (
    AdaptiveSpec,
    AttackSpec,
    BrepMiSpec,
    GmiSpec,
    IfGmiSpec,
    MirrorBSpec,
    MirrorWSpec,
    PpaSpec,
)
from tasks.classifiers import ACCESS, CountingClassifier, TorchClassifier
from tasks.draws import Draws
from tasks.types import Bounds, ClassId, IdentityId, Lender, TargetClass

SIZE = 8
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.8, 0.8, 0.1]])

SEARCH: dict[str, Any] = {
    "pool": 64,
    "candidates": 4,
    "steps": 12,
    "keep": 3,
    "selection_rounds": 4,
    "learning_rate": 0.2,
}
SPECS: dict[str, AttackSpec] = {
    "ppa": PpaSpec(**SEARCH),
    "mirror-w": MirrorWSpec(pool=64, starts=3, steps=15, clip_sigmas=2.0),
    "mirror-b": MirrorBSpec(pool=64, restarts=3, population=8, generations=10, clip_sigmas=2.0),
    "gmi": GmiSpec(restarts=3, steps=40, averaged_over=1, learning_rate=0.002, clip=3.0),
    "if-gmi": IfGmiSpec(**SEARCH, layers=1, layer_steps=4, radii=(0.5,)),
    "brep-mi": BrepMiSpec(pool=64, restarts=3, points=8, steps=6, radius=0.3, step_size=0.3),
}
SPECS["ppa-rungs"] = PpaSpec(**SEARCH | {"candidates": 9}, rungs=(3, 6), title="ppa-rungs")
SPECS |= {
    f"adaptive-{strategy}": AdaptiveSpec(
        **SEARCH | {"candidates": 6}, strategy=strategy, modes=2, probes=2
    )
    for strategy in ADAPTIVE
}
assert {spec.name for spec in SPECS.values()} == set(ATTACKS), "every attack has a toy setting"


class ColourPrior:
    """Flat pictures whose colour is an affine map of w; values in [-1, 1], to try the border."""

    bounds = Bounds(-1.0, 1.0)
    image_size = SIZE
    z_size = 6
    w_size = 6
    slope = 0.2
    num_layers = 2
    critic = None

    def __init__(self) -> None:
        self.w_mean = torch.zeros(6)
        self.mix = torch.eye(3, 6) + 0.1

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return functional.leaky_relu(z, 0.2) * truncation

    def synthesize(self, w: Tensor) -> Tensor:
        return self.finish(self.advance((), w, 0, 2))

    def advance(self, state: State, w: Tensor, start: int, stop: int) -> State:
        for layer in range(start, stop):
            state = (w @ self.mix.T if layer == 0 else state[0][:, :, None, None],)
        return state

    def finish(self, state: State) -> Tensor:
        return torch.tanh(state[0]).expand(-1, -1, SIZE, SIZE)


class NearestColour(torch.nn.Module):
    """Logits are -20 times the squared distances to the four colours."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 4)
        self.head.weight.data.copy_(40 * COLOURS)
        self.head.bias.data.copy_(-20 * COLOURS.square().sum(1))
        self.broken = False

    def forward(self, images: Tensor) -> Tensor:
        mean = (images * 0.5 + 0.5).mean(dim=(2, 3))
        logits = self.head(mean) - 20 * mean.square().sum(1, keepdim=True)
        broken: Tensor = logits * float("nan")
        return broken if self.broken else logits


@dataclass
class ToyWorld:
    """The classifier, the prior and three targets."""

    module: NearestColour
    prior: ColourPrior
    targets: list[TargetClass]

    @classmethod
    def make(cls) -> ToyWorld:
        targets = [
            TargetClass(ClassId(i), IdentityId(f"p{i}"), (Lender(IdentityId(f"s{i}"), 4 + i),))
            for i in (2, 0, 3)
        ]
        return cls(NearestColour(), ColourPrior(), targets)

    def access(self, name: str) -> CountingClassifier:
        attack = ATTACKS[SPECS[name].name]
        return ACCESS[attack.access](TorchClassifier(self.module, 4, SIZE))

    def run(
        self, name: str, seed: int = 0, targets: list[TargetClass] | None = None
    ) -> AttackResult:
        attack = make_attack(SPECS[name], self.knowledge())
        return attack.run(self.access(name), self.prior, targets or self.targets, Draws(seed))

    def run_spec(self, spec: AttackSpec, seed: int = 0) -> AttackResult:
        """Run an attack that is not in SPECS."""
        attack = make_attack(spec, self.knowledge())
        seen = ACCESS[attack.access](TorchClassifier(self.module, 4, SIZE))
        return attack.run(seen, self.prior, self.targets, Draws(seed))

    def knowledge(self) -> Knowledge:
        """Whether a person is red, green, blue, as that colour's channel says."""

        class Reader(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gain = torch.nn.Parameter(torch.tensor(8.0))

            def forward(self, images: Tensor) -> Tensor:
                logits: Tensor = self.gain * images.mean(dim=(2, 3))
                return logits

        has = {int(t.label): COLOURS[int(t.label)] > 0.5 for t in self.targets}
        return Knowledge(TorchClassifier(Reader(), 3, SIZE), has)

    def hit_rate(self, result: AttackResult) -> float:
        mean = result.images.mean(dim=(3, 4))
        near = torch.cdist(mean, COLOURS).argmin(dim=2)
        wanted = torch.tensor([int(t.label) for t in self.targets])[:, None]
        return float((near == wanted).float().mean())
