"""An audit's attacks on one model, seed by seed, and what they found until they ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from attacks.attack import to_bounds
from attacks.prior import Prior
from attacks.registry import make_attack
from attacks.spec import AttackSpec
from orchestrator.attacking import stored
from orchestrator.images_stage import Progress
from tasks.classifiers import ACCESS
from tasks.draws import Draws
from tasks.errors import EndpointError, QueryBudgetError
from tasks.evaluation import to_unit
from tasks.foreign_classifier import Foreign
from tasks.http_classifier import HttpClassifier
from tasks.types import UNIT, ClassId, IdentityId, Image8, TargetClass


@dataclass
class Watched:
    """An endpoint that shows what it saw: the best image of each person, and its score.

    Args:
        model: the endpoint.
        wanted: classes of the people, (targets,).
    """

    model: HttpClassifier
    wanted: Tensor
    best: Tensor = field(init=False)
    images: list[Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.bounds, self.image_size = self.model.bounds, self.model.image_size
        self.num_classes, self.device = self.model.num_classes, self.model.device
        self.forget()

    def forget(self) -> None:
        """Begin a new search."""
        self.best = torch.full((len(self.wanted),), -1.0)
        self.images = [None] * len(self.wanted)

    def logits(self, images: Tensor) -> Tensor:
        """Refuse, as the endpoint does."""
        return self.model.logits(images)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse, as the endpoint does."""
        return self.model.embed(images)

    def scores(self, images: Tensor) -> Tensor:
        """Return scores; of a batch that the budget cuts, what still fits is asked and seen."""
        found = []
        for part in images.split(self.model.batch):
            left = self.model.left
            if left is not None and 0 < left < len(part):
                self._see(part[:left])
            found.append(self._see(part))
        return torch.cat(found)

    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class of each image."""
        return self.scores(images).argmax(dim=1)

    def _see(self, images: Tensor) -> Tensor:
        scores = self.model.scores(images)
        top = scores[:, self.wanted].max(dim=0)
        for i in torch.nonzero(top.values > self.best)[:, 0].tolist():
            self.best[i] = top.values[i]
            self.images[i] = images[top.indices[i]].clone()
        return scores

    def part(self) -> Part | None:
        """Return the best image of each person, None where nothing was seen yet."""
        seen = [image for image in self.images if image is not None]
        if len(seen) < len(self.images):
            return None
        return Part(stored(torch.stack(seen)[:, None]), self.best[:, None].numpy(), whole=False)


@dataclass(frozen=True)
class Part:
    """What one attack found with one seed.

    Attributes:
        images: (targets, n, s, s, 3).
        confidence: of the attacked model, (targets, n); None where only labels are known.
        whole: it ended; else it is the best image that was seen of each.
    """

    images: Image8
    confidence: np.ndarray | None
    whole: bool


@dataclass
class Campaign:
    """All attacks with all seeds on one model, and what they found until they ended.

    Args:
        model: the audited one.
        prior: the attacker's generator.
        classes: whom to attack.
        attacks: their settings.
        seeds: of the searches.
    """

    model: Foreign
    prior: Prior
    classes: tuple[int, ...]
    attacks: tuple[AttackSpec, ...]
    seeds: tuple[int, ...]
    found: dict[str, dict[int, Part]] = field(default_factory=dict)
    queries: dict[str, int] = field(default_factory=dict)
    stopped: QueryBudgetError | EndpointError | None = None

    @property
    def endpoint(self) -> HttpClassifier | None:
        """The model, if it is one."""
        classifier = self.model.classifier
        return classifier if isinstance(classifier, HttpClassifier) else None

    @property
    def targets(self) -> list[TargetClass]:
        """The classes as attacks take them."""
        return [TargetClass(ClassId(c), IdentityId(f"class {c}"), ()) for c in self.classes]

    def parts(self, name: str) -> list[Part]:
        """Return what an attack found, by seed."""
        return [self.found.get(name, {})[seed] for seed in sorted(self.found.get(name, {}))]

    def run(self, progress: Progress) -> None:
        """Run seed by seed, so that what a budget cuts short has something of every attack."""
        total = len(self.seeds) * len(self.attacks)
        watched = None
        if self.endpoint is not None:
            watched = Watched(self.endpoint, torch.tensor(self.classes))
        for done, (seed, one) in enumerate((s, a) for s in self.seeds for a in self.attacks):
            progress("attacks", done, total)
            before = 0 if self.endpoint is None else self.endpoint.queries
            attack = make_attack(one)
            seen = ACCESS[attack.access](watched or self.model.classifier)
            if watched is not None:
                watched.forget()
            try:
                result = attack.run(seen, self.prior, self.targets, Draws(seed, (one.label,)))
                images = stored(result.images)
                own = result.confidence.cpu().numpy() if attack.access == "scores" else None
                part = Part(images, self._confidence(images, own), whole=True)
                self.found.setdefault(one.label, {})[seed] = part
            except (QueryBudgetError, EndpointError) as error:
                self.stopped = error
                if watched is not None and (best := watched.part()) is not None:
                    self.found.setdefault(one.label, {})[seed] = best
            asked = seen.queries if self.endpoint is None else self.endpoint.queries - before
            self.queries[one.label] = self.queries.get(one.label, 0) + asked
            if self.stopped is not None:
                break
        progress("attacks", total, total)

    def _confidence(self, images: Image8, own: np.ndarray | None) -> np.ndarray | None:
        """Return what the model says of the stored images; of an endpoint, what it has said."""
        if self.endpoint is not None:
            return own
        classifier = self.model.classifier
        count, each = images.shape[:2]
        labels = torch.tensor(self.classes).repeat_interleave(each)
        flat = images.reshape(-1, *images.shape[2:])
        scores = [
            classifier.scores(to_bounds(to_unit(flat[i : i + 64]), UNIT, classifier.bounds)).cpu()
            for i in range(0, len(flat), 64)
        ]
        found: np.ndarray = torch.cat(scores).gather(1, labels[:, None]).view(count, each).numpy()
        return found
