"""`dcdctl audit`: attack a classifier that somebody else trained, and say who is exposed.

Every attack runs once a seed over all classes that were asked for. What an endpoint's budget cuts
short counts with the one best image that was seen of each person, and is called incomplete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attacks.registry import make_attack
from attacks.spec import AttackSpec
from orchestrator.audit_campaign import Campaign
from orchestrator.audit_judge import (
    Judge,
    People,
    folders_of,
    given_judge,
    read_people,
    right_answers,
    train_judge,
)
from orchestrator.audit_records import AuditOutcome
from orchestrator.audit_request import (
    AuditRequest,
    choose_attacks,
    choose_classes,
    class_names,
    open_model,
    open_risk,
)
from orchestrator.audit_result import audit_outcome, write_result
from orchestrator.images_stage import Progress
from orchestrator.prior_stage import prepare_prior, trains_prior
from orchestrator.records import Rate
from orchestrator.selection import select
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from tasks.errors import SpecError
from tasks.foreign_classifier import Foreign
from tasks.http_classifier import HttpClassifier

SHOWN_TO_MODEL, SHOWN_TO_ENDPOINT = 8, 2
"""Real images of each person that the audited model is shown, to see that it knows them."""


def run_audit(
    spec: ExperimentSpec,
    asked: AuditRequest,
    listed: Sequence[AttackSpec] | None,
    store: Store,
    progress: Progress,
    say: Callable[[str], None],
) -> AuditOutcome:
    """Attack the model, judge what was found, and write the result.

    Args:
        spec: the attacker's prior, the judge's training, the seed.
        asked: the model, and whom to attack.
        listed: attacks of the experiment file; None without one takes all.
        store: for pseudonyms, the judge and the result.
        progress: called after each attack and epoch.
        say: called at once with what should be known before the end.

    Raises:
        DcdctlError: the model cannot be opened or attacked; one sentence says why.
    """
    started = time.monotonic()
    asked.check()
    if asked.query_budget is not None:
        _check_budget(
            asked.query_budget, choose_attacks(asked.attacks, listed, "scores", features=False)
        )
    late = trains_prior(spec)  # a model that cannot be opened shall be known before hours are spent
    prior = None if late else prepare_prior(spec, store, select(spec), progress)[0]
    size = spec.data.image_size if prior is None else prior.image_size
    risk = open_risk(asked)
    notes = [] if risk is None else [risk]
    for note in notes:
        say(f"warning: {note}")
    model = open_model(asked, size)
    access = model.classifier
    names = class_names(asked.labels, access.num_classes)
    pictured = [] if asked.images is None else list(folders_of(asked.images, names))
    classes = choose_classes(asked.classes, access.num_classes, names, pictured)
    attacks = choose_attacks(asked.attacks, listed, model.access, features=model.has_features)
    endpoint = access if isinstance(access, HttpClassifier) else None
    if prior is None:
        prior = prepare_prior(spec, store, select(spec), progress)[0]
    people = None
    if asked.images is not None:
        people, said = read_people(
            spec, store, asked.images, classes, names, prior.image_size, progress
        )
        notes += said
    judge = _judge(spec, asked, store, model, classes, people, progress)
    knows: tuple[Rate, ...] = ()
    if people is not None:
        most = SHOWN_TO_MODEL if endpoint is None else SHOWN_TO_ENDPOINT
        knows = right_answers(access, people, classes, ("train", "test"), most)

    seeds = tuple(spec.seed + i for i in range(asked.seeds))
    if endpoint is not None and endpoint.left is not None:
        full = len(seeds) * sum(make_attack(one).images(len(classes)) for one in attacks)
        if full > endpoint.left:
            notes.append(
                f"a whole audit asks up to {full:,} queries, and {endpoint.left:,} are left: it "
                "may end early; name fewer --classes, or --seeds, or a smaller attack"
            )
            say(f"warning: {notes[-1]}")
    campaign = Campaign(model, prior, classes, attacks, seeds)
    campaign.run(progress)
    outcome = audit_outcome(spec, asked, store, campaign, judge, people, knows, names, notes)
    outcome = outcome.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
    write_result(Path(outcome.out), outcome, campaign, classes, names, store, asked)
    return outcome


def _check_budget(budget: int, attacks: Sequence[AttackSpec]) -> None:
    """Refuse a budget that the first step of the cheapest attack would exceed.

    Raises:
        SpecError: says what one step needs.
    """
    steps = {one.label: 1 + int(getattr(one, "pool", 1)) for one in attacks}
    name, least = min(steps.items(), key=lambda item: item[1])
    if budget < least:
        raise SpecError(
            f"--query-budget {budget:,} is too small for one step: {name} begins with {least:,} "
            f"queries; raise it, or lower attacks.{name}.pool"
        )


def _judge(
    spec: ExperimentSpec,
    asked: AuditRequest,
    store: Store,
    model: Foreign,
    classes: Sequence[int],
    people: People | None,
    progress: Progress,
) -> Judge | None:
    if asked.judge is not None:
        return given_judge(asked.judge, model, classes, people)
    if people is not None:
        return train_judge(spec, store, people, model.architecture, progress)
    return None
