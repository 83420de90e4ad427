"""The adaptive attacker in a protected toy world: class 0 holds red and, easier to find, white."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks.attack import AttackResult
from attacks.knowledge import Knowledge
from attacks.modes import cluster, one_of_each
from attacks.presets import ADAPTIVE
from attacks.registry import make_attack
from attacks.sharpness import sharpness
from attacks.spec import AdaptiveSpec, PpaSpec
from tasks.classifiers import CountingClassifier, TorchClassifier
from tasks.draws import Draws
from tasks.errors import AttackError
from tasks.types import ClassId, IdentityId, Lender, TargetClass
from tests.attacks.toy import SEARCH, SIZE, ColourPrior, ToyWorld

RED, BLUE, WHITE = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.9]])
TARGET = TargetClass(ClassId(0), IdentityId("red"), (Lender(IdentityId("white"), 3),))
BUDGET = SEARCH | {"candidates": 24, "keep": 8, "pool": 400, "steps": 30, "modes": 3, "probes": 4}


class WidePrior(ColourPrior):
    """All colours, about equally often."""

    slope = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.eye(3, 6)

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return z * truncation


class TwoPeople(torch.nn.Module):
    """Class 0 is white, widely and flatly; and red, narrowly, steeply and less surely."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[4.0, 6.0, 0.0], [0.0, 0.0, 6.0]])

    def forward(self, images: Tensor) -> Tensor:
        colour = (images * 0.5 + 0.5).mean(dim=(2, 3))
        centres = torch.stack([RED, WHITE, BLUE])
        width = torch.tensor([0.06, 0.12, 0.12])
        near = torch.exp(-torch.cdist(colour, centres).square() / width)
        logits: Tensor = self.head(near)
        return logits


def run(strategy: str | None, knowledge: Knowledge | None = None) -> AttackResult:
    classifier = CountingClassifier(TorchClassifier(TwoPeople(), 2, SIZE))
    spec: AdaptiveSpec | PpaSpec
    if strategy is None:
        plain = {key: value for key, value in BUDGET.items() if key not in ("modes", "probes")}
        spec = PpaSpec.model_validate(plain)
    else:
        spec = AdaptiveSpec.model_validate(BUDGET | {"strategy": strategy, "confidence": 0.9})
    return make_attack(spec, knowledge).run(classifier, WidePrior(), [TARGET], Draws(0))


def reds(result: AttackResult) -> Tensor:
    """Whether each reconstruction is nearer to red than to white, (n,)."""
    colour = result.images[0].mean(dim=(2, 3))
    distance = torch.cdist(colour, torch.stack([RED, WHITE]))
    return distance[:, 0] < distance[:, 1]


def knowledge_of(red: bool) -> Knowledge:
    reader = ToyWorld.make().knowledge().reader
    return Knowledge(reader, {0: torch.tensor([True, not red, not red])})


def test_the_plain_attack_shows_the_surrogate_first() -> None:
    assert not bool(reds(run(None))[0])


@pytest.mark.parametrize("strategy", ["modes", "reject", "sharp", "level"])
def test_it_finds_the_second_person_among_its_first_two(strategy: str) -> None:
    assert bool(reds(run(strategy))[:2].any())


def test_a_known_attribute_picks_the_mode() -> None:
    assert bool(reds(run("attribute", knowledge_of(red=True)))[0])
    assert not bool(reds(run("attribute", knowledge_of(red=False)))[0])


def test_attributes_need_knowledge() -> None:
    with pytest.raises(AttackError, match="give no attributes of the targets"):
        run("attribute")


def test_level_holds_the_confidence_where_it_is_told() -> None:
    classifier = TorchClassifier(TwoPeople(), 2, SIZE)
    found = classifier.scores(run("level").images[0])[:, 0]
    assert torch.all((found[:4] - 0.9).abs() < 0.08)
    assert float(classifier.scores(run(None).images[0])[:, 0].max()) > 0.98


@pytest.mark.parametrize("strategy", ADAPTIVE)
def test_it_asks_no_more_than_twice_the_plain_attack(strategy: str) -> None:
    plain = make_attack(PpaSpec()).images(8)
    adaptive = make_attack(AdaptiveSpec.model_validate({"strategy": strategy})).images(8)
    assert adaptive <= 2 * plain


def test_modes_are_found_and_take_turns() -> None:
    first, second = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.2])
    points = torch.stack([first, first, second, first, second])[None]
    points = points + 0.01 * torch.arange(15).view(1, 5, 3) / 15
    member = cluster(points, 2)
    assert member.tolist() == [[0, 0, 1, 0, 1]]
    worth = torch.tensor([[0.9, 0.8, 0.1, 0.7, 0.2]])
    assert one_of_each(member, worth, 5).tolist() == [[0, 4, 1, 2, 3]]
    assert one_of_each(member, torch.ones(1, 5), 2).tolist() == [[0, 2]]


def test_the_probe_finds_the_curvature_of_a_parabola() -> None:
    class Bowl(torch.nn.Module):
        """Cross entropy log(1 + exp(a |x|^2)), whose curvature at 0 is known."""

        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, images: Tensor) -> Tensor:
            rise = self.a * images.square().sum(dim=(1, 2, 3))
            return torch.stack([-rise, torch.zeros_like(rise)], dim=1)

    classifier = TorchClassifier(Bowl(), 2, 4)
    images = torch.full((3, 3, 4, 4), 0.5)  # 0 after normalisation
    spec = AdaptiveSpec(strategy="sharp", probes=3)
    found = sharpness(
        classifier,
        images,
        torch.zeros(3, dtype=torch.int64),
        torch.arange(3).numpy(),
        spec,
        Draws(0),
    )
    # softplus'(0) = 1/2, inputs doubled by the normalisation: 2 * 0.5 * 0.5 * 4 * 48 = 96.
    assert torch.allclose(found, torch.full((3,), 96.0), rtol=0.05)
