"""The adaptive attacker: knows that DCD is in use and how it works, not who the surrogate is.

Each strategy is PPA's search with PPA's budget, and looks for the second person of a class in its
own way. What they find is reported beside the plain attacks: a defence is worth what is left
against the best of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from attacks.attack import Access, AttackResult, labels_of
from attacks.candidates import candidate_ids, synthesize_all
from attacks.curve import Curve
from attacks.knowledge import Knowledge
from attacks.losses import LOSSES, level
from attacks.modes import cluster, one_of_each
from attacks.objective import Objective
from attacks.parts import slices
from attacks.pool import Pool, score_pool
from attacks.ppa import search_images
from attacks.prior import Prior
from attacks.search import robust_confidence, search, synthesize_flat
from attacks.sharpness import sharpness
from attacks.spec import AdaptiveSpec
from tasks.classifiers import Classifier
from tasks.draws import Draws, IntArray
from tasks.errors import AttackError
from tasks.types import TargetClass

VIEWS = 4
"""views: over which gradients are averaged where the spec does not say."""

SPREAD = 10
"""reject: the second round starts from so many times its candidates, the most unlike the first."""


class Adaptive:
    """One strategy of the adaptive attacker.

    Args:
        spec: the strategy and its budget.
        knowledge: what is known of the targets; only the strategy `attribute` needs it.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, spec: AdaptiveSpec, knowledge: Knowledge | None = None) -> None:
        if spec.strategy == "views" and not spec.views:
            spec = spec.model_copy(update={"views": VIEWS})
        self.spec = spec
        self.knowledge = knowledge

    def images(self, targets: int) -> int:
        """Return how many images it synthesises or shows, at the most."""
        spec = self.spec
        extra = {"sharp": 2 * spec.probes + 1, "modes": 1, "attribute": 1, "level": 1}
        extra["reject"] = SPREAD + 1
        each = extra.get(spec.strategy, 0)
        return search_images(spec, targets) + targets * spec.candidates * each

    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return up to `keep` reconstructions of each target, in the strategy's own order.

        Raises:
            AttackError: nothing is known of the targets, and the strategy is `attribute`.
        """
        spec = self.spec
        pool = score_pool(
            classifier,
            prior,
            spec.pool,
            draws.child("pool"),
            truncation=spec.truncation,
            mirror=True,
        )
        hunt = _Hunt(spec, classifier, prior, targets, draws, pool)
        w = hunt.second_mode() if spec.strategy == "reject" else hunt.find(self._loss())
        images = synthesize_flat(prior, w.flatten(0, 1), classifier)
        sure = hunt.confidence(images)
        order = self._order(hunt, images, sure)[:, : spec.keep]
        rows = torch.arange(len(targets), device=w.device)[:, None]
        latents = w[rows, order]
        return AttackResult(
            synthesize_all(prior, latents), latents, sure[rows, order], hunt.curve.points()
        )

    def _loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        if self.spec.strategy == "level":
            return partial(level, confidence=self.spec.confidence)
        return LOSSES[self.spec.loss]

    def _order(self, hunt: _Hunt, images: Tensor, sure: Tensor) -> Tensor:
        """Return the candidates of each target, the one to show first first, (targets, n)."""
        spec = self.spec
        if spec.strategy == "modes":
            member = cluster(hunt.features(images), spec.modes)
            return one_of_each(member, sure, sure.shape[1])
        if spec.strategy == "sharp":
            steep = sharpness(hunt.classifier, images, hunt.labels, hunt.ids, spec, hunt.draws)
            return steep.view_as(sure).argsort(dim=1, descending=True, stable=True)
        if spec.strategy == "attribute":
            return self._by_attributes(hunt, images, sure)
        if spec.strategy == "level":
            return hunt.distance(images).view_as(sure).argsort(dim=1, stable=True)
        return sure.argsort(dim=1, descending=True, stable=True)

    def _by_attributes(self, hunt: _Hunt, images: Tensor, sure: Tensor) -> Tensor:
        """Order modes by how well they fit what is known, and candidates within a mode alike."""
        if self.knowledge is None:
            raise AttackError(
                "adaptive attack by attributes: the data give no attributes of the targets, or "
                "none that `known` names; use another strategy"
            )
        fit = torch.cat(
            [self.knowledge.fit(images[part], hunt.labels[part]) for part in slices(len(images))]
        ).view_as(sure)
        member = cluster(hunt.features(images), self.spec.modes)
        share = functional.one_hot(member, int(member.max()) + 1).to(fit)
        of_mode = (fit[:, :, None] * share).sum(1) / share.sum(1).clamp_min(1)
        worth = torch.gather(of_mode, 1, member)
        # The mode decides, the single picture only breaks the tie: one picture is read badly.
        return (worth + 1e-3 * torch.sigmoid(fit)).argsort(dim=1, descending=True, stable=True)


class _Hunt:
    """One run's candidates: where they start, how they are searched and looked at."""

    def __init__(
        self,
        spec: AdaptiveSpec,
        classifier: Classifier,
        prior: Prior,
        targets: Sequence[TargetClass],
        draws: Draws,
        pool: Pool,
    ) -> None:
        # Averaging over views costs as many passes, so that there are as many fewer candidates.
        views = max(1, spec.views)
        self.spec, self.classifier, self.prior, self.draws = spec, classifier, prior, draws
        self.targets, self.pool = targets, pool
        self.count = max(1, min(spec.candidates // views, spec.pool))
        self.of_target = labels_of(targets, classifier.device)
        self.labels, self.ids = self._keys(self.count)
        self.curve = Curve()

    def _keys(self, count: int) -> tuple[Tensor, IntArray]:
        return self.of_target.repeat_interleave(count), candidate_ids(self.targets, count)

    def find(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        starts: Tensor | None = None,
        name: str = "search",
    ) -> Tensor:
        """Return optimised latents, (targets, n, w_size); the pool's best are where they start."""
        starts = self.pool.best(self.of_target, self.count) if starts is None else starts
        labels, ids = self._keys(starts.shape[1])
        draws = self.draws.child(name)
        objective = Objective(self.spec, self.classifier, self.prior, draws, loss)
        self.curve = objective.curve
        w = search(self.spec, objective, self.prior, starts.flatten(0, 1), labels, ids, draws)
        return w.view(*starts.shape)

    def second_mode(self) -> Tensor:
        """Search, reject what was found, search again: half of the candidates for each.

        Returns:
            Latents (targets, n, w_size): the second search's, for which the first was the price.
        """
        spec, half = self.spec, max(1, self.count // 2)
        plain = LOSSES[spec.loss]
        first = self.find(plain, self.pool.best(self.of_target, half), "first")
        seen = synthesize_flat(self.prior, first.flatten(0, 1), self.classifier)
        labels, ids = self._keys(half)
        sure = robust_confidence(
            self.classifier, seen, labels, ids, spec.selection_rounds, self.draws.child("first")
        ).view(len(self.targets), half)
        features = self.features(seen)
        rows = torch.arange(len(self.targets), device=sure.device)
        found = features[rows, sure.argmax(dim=1)]  # (targets, d)

        wide = self.pool.best(self.of_target, min(SPREAD * half, len(self.pool.latents)))
        shown = self.features(synthesize_flat(self.prior, wide.flatten(0, 1), self.classifier))
        # Directions from each target's own middle: all faces look alike from the origin.
        middle = shown.mean(dim=1)
        found = functional.normalize(found - middle, dim=1)
        like = (functional.normalize(shown - middle[:, None], dim=2) * found[:, None]).sum(dim=2)
        starts = wide[rows[:, None], like.argsort(dim=1, stable=True)[:, :half]]
        self.count = half
        self.labels, self.ids = labels, ids
        return self._away(plain, starts, found, middle)

    def _away(
        self,
        plain: Callable[[Tensor, Tensor], Tensor],
        starts: Tensor,
        found: Tensor,
        middle: Tensor,
    ) -> Tensor:
        """Return latents that minimise the loss and the likeness to what was found."""
        draws = self.draws.child("second")
        place = {int(label): i for i, label in enumerate(self.of_target.tolist())}
        classifier, weight = self.classifier, self.spec.reject_weight

        class Rejecting(Objective):
            def _one_view(self, images: Tensor, labels: Tensor) -> Tensor:
                logits, features = classifier.embed(images)
                of = [place[int(label)] for label in labels.tolist()]
                like = (functional.normalize(features - middle[of], dim=1) * found[of]).sum(dim=1)
                return plain(logits, labels) + weight * like

        objective = Rejecting(self.spec, classifier, self.prior, draws)
        self.curve = objective.curve  # the second search's: what the first found is rejected
        w = search(
            self.spec, objective, self.prior, starts.flatten(0, 1), self.labels, self.ids, draws
        )
        return w.view(*starts.shape)

    def confidence(self, images: Tensor) -> Tensor:
        """Return the robust confidence of candidates, (targets, n)."""
        spec = self.spec
        sure = robust_confidence(
            self.classifier, images, self.labels, self.ids, spec.selection_rounds, self.draws
        )
        return sure.view(len(self.targets), -1)

    @torch.no_grad()
    def distance(self, images: Tensor) -> Tensor:
        """Return how far each candidate is from the profile that `level` holds, (n,)."""
        parts = []
        for part in slices(len(images)):
            logits = self.classifier.logits(images[part])
            parts.append(level(logits, self.labels[part], self.spec.confidence))
        return torch.cat(parts)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features of images (targets * n, ...), (targets, n, d)."""
        parts = [self.classifier.embed(images[part])[1] for part in slices(len(images))]
        return torch.cat(parts).view(len(self.targets), -1, parts[0].shape[1])
