"""Plug & Play Attack (Struppek et al., ICML 2022): search w space for images of a target class.

Steps as in the paper: initial selection from a pool, optimisation with the Poincare loss under
random crops, final selection by the confidence under strong random views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from attacks.attack import Access, AttackResult, labels_of
from attacks.candidates import best_first, candidate_ids, synthesize_all
from attacks.objective import Objective
from attacks.pool import score_pool
from attacks.prior import Prior
from attacks.rejection import candidate_steps, search_rejecting, stretches
from attacks.search import robust_confidence, synthesize_flat
from attacks.spec import PpaSpec, SearchSpec
from attacks.students import BATCH as LEARNT
from tasks.classifiers import Classifier
from tasks.draws import Draws
from tasks.types import TargetClass


class PPA:
    """Plug & Play Attack.

    Args:
        spec: the budget.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, spec: PpaSpec) -> None:
        self.spec = spec

    def images(self, targets: int) -> int:
        """Return how many images it synthesises or shows."""
        spec = self.spec
        left = stretches(spec.rungs, spec.steps, spec.candidates, spec.keep)[-1][1]
        spared = spec.candidates * spec.steps - candidate_steps(spec)
        unseen = (spec.candidates - left) * spec.selection_rounds
        return search_images(spec, targets) - targets * (spared * max(1, spec.views) + unseen)

    def run(
        self, classifier: Classifier, prior: Prior, targets: Sequence[TargetClass], draws: Draws
    ) -> AttackResult:
        """Return `keep` reconstructions of each target, the most robust first."""
        spec = self.spec
        labels = labels_of(targets, classifier.device)
        count = min(spec.candidates, spec.pool)
        pool = score_pool(
            classifier,
            prior,
            spec.pool,
            draws.child("pool"),
            truncation=spec.truncation,
            mirror=True,
        )
        wanted = labels.repeat_interleave(count)
        ids = candidate_ids(targets, count)
        objective = Objective(spec, classifier, prior, draws)
        starts = pool.best(labels, count).flatten(0, 1)
        w, left = search_rejecting(spec, objective, prior, starts, wanted, ids, draws, len(targets))
        wanted, ids = wanted[left], ids[left.cpu().numpy()]
        images = synthesize_flat(prior, w, classifier)
        sure = robust_confidence(classifier, images, wanted, ids, spec.selection_rounds, draws)
        confidence, rows = best_first(sure, len(targets), spec.keep)
        latents = w[rows]
        return AttackResult(
            synthesize_all(prior, latents), latents, confidence, objective.curve.points()
        )


def search_images(spec: SearchSpec, targets: int) -> int:
    """Return how many images a search synthesises or shows, its pool's mirror images included."""
    each = spec.steps * max(1, spec.views) + spec.selection_rounds
    taught = LEARNT * spec.student_steps if spec.students else 0
    return 2 * spec.pool + targets * spec.candidates * each + taught
