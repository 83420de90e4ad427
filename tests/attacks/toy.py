"""A toy world for the contract of all attacks: colours as people, a linear prior of colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attacks.attack import AttackResult
from attacks.prior import State
from attacks.registry import ATTACKS, make_attack
from attacks.spec import AttackSpec, MirrorBSpec, MirrorWSpec, PpaSpec
from tasks.classifiers import CountingClassifier, ScoresOnly, TorchClassifier
from tasks.draws import Draws
from tasks.types import Bounds, ClassId, IdentityId, Lender, TargetClass

SIZE = 8
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.8, 0.8, 0.1]])

SPECS: dict[str, AttackSpec] = {
    "ppa": PpaSpec(pool=64, candidates=4, steps=12, keep=3, selection_rounds=4, learning_rate=0.2),
    "mirror-w": MirrorWSpec(pool=64, starts=3, steps=15, clip_sigmas=2.0),
    "mirror-b": MirrorBSpec(pool=64, restarts=3, population=8, generations=10, clip_sigmas=2.0),
}
assert set(SPECS) == set(ATTACKS), "every attack has a toy setting"


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
    """Logits are scaled negative distances to the four colours."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = torch.nn.Parameter(COLOURS.clone())
        self.broken = False

    def forward(self, images: Tensor) -> Tensor:
        mean = (images * 0.5 + 0.5).mean(dim=(2, 3))
        logits = -20 * torch.cdist(mean, self.colours).square()
        return logits * float("nan") if self.broken else logits


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

    def access(self, name: str) -> CountingClassifier | ScoresOnly:
        classifier = TorchClassifier(self.module, 4, SIZE)
        white = ATTACKS[name].access == "white-box"
        return CountingClassifier(classifier) if white else ScoresOnly(classifier)

    def run(
        self, name: str, seed: int = 0, targets: list[TargetClass] | None = None
    ) -> AttackResult:
        attack = make_attack(SPECS[name])
        return attack.run(self.access(name), self.prior, targets or self.targets, Draws(seed))

    def hit_rate(self, result: AttackResult) -> float:
        mean = result.images.mean(dim=(3, 4))
        near = torch.cdist(mean, COLOURS).argmin(dim=2)
        wanted = torch.tensor([int(t.label) for t in self.targets])[:, None]
        return float((near == wanted).float().mean())
