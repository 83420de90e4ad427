"""What an audit found, as it is told and kept: a verdict on each identity, and the files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attacks.registry import ATTACKS
from orchestrator.audit_campaign import Campaign
from orchestrator.audit_judge import Judge, People, summed
from orchestrator.audit_records import (
    KNOWN,
    MODEL_ONLY,
    AttackMean,
    AuditOutcome,
    IdentityAttack,
    IdentityExposure,
    ModelSummary,
    verdict_of_all,
    verdict_on,
    worst_first,
)
from orchestrator.audit_request import AuditRequest
from orchestrator.forget import note_output
from orchestrator.records import Rate
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, disk_errors, write_atomic
from tasks.errors import EndpointError, QueryBudgetError
from tasks.evaluation import TARGET
from tasks.evaluation import judge as say_whom
from tasks.http_classifier import HttpClassifier
from tasks.spec import fingerprint
from tasks.types import ClassId, IdentityId, TargetClass

RESULT, WHO, RECONSTRUCTIONS = "audit.json", "private/identities.json", "reconstructions.npz"


def audit_outcome(
    spec: ExperimentSpec,
    asked: AuditRequest,
    store: Store,
    campaign: Campaign,
    judge: Judge | None,
    people: People | None,
    knows: tuple[Rate, ...],
    names: Sequence[str] | None,
    notes: list[str],
) -> AuditOutcome:
    """Return the verdicts of a campaign that has ended, the worst first.

    Args:
        spec: the experiment.
        asked: the model, and what is accepted.
        store: for pseudonyms.
        campaign: the attacks and what they found.
        judge: says whom a reconstruction shows; None leaves all unjudged.
        people: real images of those attacked, None where none were given.
        knows: right answers of the audited model on them, by person.
        names: of the classes, None for numbers.
        notes: what was to be said before.
    """
    hits = {one.label: _hits(campaign, one.label, judge) for one in campaign.attacks}
    ended = {
        one.label: len(campaign.parts(one.label)) == len(campaign.seeds)
        and all(part.whole for part in campaign.parts(one.label))
        for one in campaign.attacks
    }
    complete = all(ended.values())
    identities = []
    for i, label in enumerate(campaign.classes):
        attacks = tuple(_one(campaign, one.label, i, hits[one.label]) for one in campaign.attacks)
        own = [rates[i] if rates else None for rates in (judge.knows if judge else (), knows)]
        verdict = verdict_on(
            [attack.hits for attack in attacks],
            asked.max_attack_accuracy,
            complete=complete,
            known=own,
        )
        if judge is None:
            verdict = "not judged"
        identities.append(
            IdentityExposure(
                pseudonym=store.pseudonym(_name(label, names)),
                verdict=verdict,
                attacks=attacks,
                judge_knows=own[0],
                model_knows=own[1],
            )
        )
    means = tuple(
        AttackMean(
            name=one.label,
            access=ATTACKS[one.name].access,
            hits=None if hits[one.label] is None else summed(hits[one.label] or ()),
            seeds=tuple(
                seed for seed, part in campaign.found.get(one.label, {}).items() if part.whole
            ),
            queries=campaign.queries.get(one.label, 0),
            complete=ended[one.label],
            settings={
                key: ", ".join(map(str, value)) if isinstance(value, list) else value
                for key, value in one.model_dump(mode="json", exclude={"name", "title"}).items()
            },
        )
        for one in campaign.attacks
    )
    endpoint, classifier = campaign.endpoint, campaign.model.classifier
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    key = fingerprint([repr(asked), spec])
    return AuditOutcome(
        verdict=verdict_of_all([one.verdict for one in identities]),
        max_attack_accuracy=asked.max_attack_accuracy,
        model=ModelSummary(
            kind=asked.kind,
            name=_model_name(asked, endpoint),
            architecture=campaign.model.architecture,
            access=campaign.model.access,
            num_classes=classifier.num_classes,
            image_size=classifier.image_size,
            on_real_images=summed(knows),
        ),
        judge=None if judge is None else judge.summary,
        identities=worst_first(identities),
        attacks=means,
        seeds=campaign.seeds,
        queries=sum(campaign.queries.values()) if endpoint is None else endpoint.queries,
        query_budget=asked.query_budget,
        stopped_by=None if campaign.stopped is None else _reason(campaign.stopped),
        stopped=None if campaign.stopped is None else str(campaign.stopped),
        notes=(*notes, *_doubts(judge, people, knows)),
        seconds=0.0,
        out=str(asked.out or store.root / "audits" / f"{stamp}-{key}"),
    )


def _reason(error: QueryBudgetError | EndpointError) -> Literal["budget", "endpoint"]:
    return "budget" if isinstance(error, QueryBudgetError) else "endpoint"


def _doubts(judge: Judge | None, people: People | None, knows: Sequence[Rate]) -> list[str]:
    """Return what makes the verdicts weaker than they look."""
    if judge is None:
        return [MODEL_ONLY]
    doubts = []
    strangers = sum(rate.value < KNOWN for rate in judge.knows)
    if strangers:
        doubts.append(
            f"the judge knows {strangers} of {len(judge.knows)} people on less than {KNOWN:.0%} of "
            "their own images; of these nobody can be cleared: give more images, or a --judge"
        )
    missed = sum(rate.value < KNOWN for rate in knows)
    if missed:
        doubts.append(
            f"the audited model names {missed} of {len(knows)} people on less than {KNOWN:.0%} of "
            "their real images at the prior's size, so nobody of these can be cleared: check the "
            "class numbers, the normalisation, and the size of the prior"
        )
    if people is None:
        doubts.append("the judge was not checked on real images; give --images to check it")
    return doubts


def _hits(campaign: Campaign, name: str, judge: Judge | None) -> tuple[Rate, ...] | None:
    """Return how many reconstructions of each person show them; None if nobody judges."""
    parts = campaign.parts(name)
    if judge is None or not parts:
        return None
    targets = [TargetClass(ClassId(c), IdentityId(f"class {c}"), ()) for c in judge.labels]
    images = np.concatenate([part.images for part in parts], axis=1)
    shown = say_whom(judge.classifier, images, targets).verdict == TARGET
    return tuple(Rate.of(int(row.sum()), len(row)) for row in shown)


def _one(campaign: Campaign, name: str, i: int, hits: tuple[Rate, ...] | None) -> IdentityAttack:
    parts = campaign.parts(name)
    sure = [float(part.confidence[i].max()) for part in parts if part.confidence is not None]
    return IdentityAttack(
        name=name,
        hits=None if hits is None else hits[i],
        reconstructions=sum(part.images.shape[1] for part in parts),
        confidence=round(max(sure), 6) if sure else None,
    )


def _name(label: int, names: Sequence[str] | None) -> str:
    return str(label) if names is None else names[label]


def _model_name(asked: AuditRequest, endpoint: HttpClassifier | None) -> str:
    """Return what was audited, without a path: a hash of the weights, or the address."""
    if endpoint is not None:
        return endpoint.endpoint.shown
    if asked.kind == "factory":
        return asked.model.rpartition("/")[2]
    path = Path(asked.model)
    weights = path / "model.safetensors" if path.is_dir() else path
    with weights.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def write_result(
    out: Path,
    outcome: AuditOutcome,
    campaign: Campaign,
    classes: Sequence[int],
    names: Sequence[str] | None,
    store: Store,
    asked: AuditRequest,
) -> None:
    """Write the result; who is behind a pseudonym goes to a file that only the owner can read."""
    if asked.out is not None:
        note_output(store, "folder", "audit", out)
    who: Mapping[str, Any] = {
        store.pseudonym(_name(label, names)): {"class": label}
        | ({} if names is None else {"name": names[label]})
        for label in classes
    }
    with disk_errors(out):
        (out / "private").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(out / WHO, json.dumps(who, indent=2) + "\n")
        os.chmod(out / WHO, 0o600)
        if asked.keep_reconstructions:
            arrays = {
                name: np.concatenate([part.images for part in campaign.parts(name)], axis=1)
                for name in campaign.found
            }
            pseudonyms = np.array([store.pseudonym(_name(label, names)) for label in classes])
            np.savez(out / RECONSTRUCTIONS, pseudonym=pseudonyms, **arrays)  # type: ignore[arg-type]
    write_atomic(out / RESULT, outcome.model_dump_json(indent=2) + "\n")
