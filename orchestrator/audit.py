"""`dcdctl audit`: attack a classifier that somebody else trained, and say who is exposed.

Every attack runs once a seed over all classes that were asked for. What an endpoint's budget cuts
short counts with the one best image that was seen of each person, and is called incomplete.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from attacks.attack import to_bounds
from attacks.prior import Prior
from attacks.registry import ATTACKS, make_attack
from attacks.spec import AttackSpec
from orchestrator.audit_judge import (
    Judge,
    People,
    folders_of,
    given_judge,
    read_people,
    right_answers,
    summed,
    train_judge,
)
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
from orchestrator.audit_request import (
    AuditRequest,
    choose_attacks,
    choose_classes,
    class_names,
    open_model,
    open_risk,
)
from orchestrator.records import Rate
from orchestrator.spec import ExperimentSpec
from orchestrator.stages import Progress, prepare_prior, select
from orchestrator.store import Store, disk_errors, write_atomic
from tasks.classifiers import ACCESS
from tasks.draws import Draws
from tasks.errors import EndpointError, QueryBudgetError, SpecError
from tasks.evaluation import TARGET, from_unit, to_unit
from tasks.evaluation import judge as say_whom
from tasks.foreign_classifier import Foreign
from tasks.http_classifier import HttpClassifier
from tasks.spec import fingerprint
from tasks.types import UNIT, ClassId, IdentityId, Image8, TargetClass

RESULT, WHO, RECONSTRUCTIONS = "audit.json", "private/identities.json", "reconstructions.npz"

SHOWN_TO_MODEL, SHOWN_TO_ENDPOINT = 8, 2
"""Real images of each person that the audited model is shown, to see that it knows them."""


def trains_prior(spec: ExperimentSpec) -> bool:
    """Say whether the attacker's generator is neither a file nor shipped."""
    from attacks.prior_training import shipped_prior_path

    if isinstance(spec.prior.source, Path):
        return False
    shipped = spec.data.kind == "builtin" and shipped_prior_path(spec.data.image_size) is not None
    return spec.prior.source == "train" or not (shipped or spec.prior.source == "shipped")


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
    outcome = _outcome(spec, asked, store, campaign, judge, people, knows, names, notes)
    outcome = outcome.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
    _write(Path(outcome.out), outcome, campaign, classes, names, store, asked)
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
        return Part(_stored(torch.stack(seen)[:, None]), self.best[:, None].numpy(), whole=False)


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
                images = _stored(result.images)
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


def _stored(images: Tensor) -> Image8:
    """Return (targets, n, 3, s, s) in [0, 1] as stored images (targets, n, s, s, 3)."""
    flat = from_unit(images.flatten(0, 1))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])


def _outcome(
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


def _write(
    out: Path,
    outcome: AuditOutcome,
    campaign: Campaign,
    classes: Sequence[int],
    names: Sequence[str] | None,
    store: Store,
    asked: AuditRequest,
) -> None:
    """Write the result; who is behind a pseudonym goes to a file that only the owner can read."""
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
