"""From reconstructions to an attack's record: verdicts, second opinions, distances, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.records import (
    AttackRecord,
    Estimate,
    FleetEstimate,
    ImageMetrics,
    KnowledgeScore,
    Rate,
    SearchCurve,
    SecondOpinion,
    TargetScore,
    WorstTarget,
)
from tasks.draws import Draws
from tasks.types import Image8

if TYPE_CHECKING:
    from attacks.spec import AttackSpec
    from orchestrator.attacking import Reconstructed
    from orchestrator.trial import World
    from tasks.evaluation import Verdicts
    from tasks.evaluation.panel import Panel


def judge_all(
    results: Mapping[str, Reconstructed],
    panel: Panel,
    world: World,
    attacks: Sequence[AttackSpec],
) -> tuple[tuple[AttackRecord, ...], dict[str, np.ndarray]]:
    """Let the panel judge; return records and the first judge's verdicts (targets, n) by attack."""
    from tasks.evaluation import judge

    verdicts = {
        name: judge(panel.first, found.images, world.attacked) for name, found in results.items()
    }
    records = []
    for spec in attacks:
        found, said = results[spec.label], verdicts[spec.label]
        record = _attack_record(spec, said, world, found.queries)
        more = _beside_the_verdict(found.images, said, panel, world, spec.label)
        more["curve"] = SearchCurve.of(found.curve)
        records.append(record.model_copy(update=more))
    return tuple(records), {name: found.verdict for name, found in verdicts.items()}


def _attack_record(
    spec: AttackSpec, verdicts: Verdicts, world: World, queries: int
) -> AttackRecord:
    from attacks.registry import ATTACKS
    from tasks.evaluation import SURROGATE, TARGET

    hit = verdicts.verdict == TARGET
    lent = verdicts.verdict == SURROGATE
    return AttackRecord(
        name=spec.label,
        access=ATTACKS[spec.name].access,
        accuracy_at_1=Rate.of(int(hit.sum()), hit.size),
        accuracy_at_5=Rate.of(int(verdicts.in_top5.sum()), hit.size),
        surrogate_rate=Rate.of(int(lent.sum()), hit.size),
        per_target=tuple(
            TargetScore(
                pseudonym=pseudonym,
                accuracy_at_1=Rate.of(int(hit[i].sum()), hit.shape[1]),
                accuracy_at_5=Rate.of(int(verdicts.in_top5[i].sum()), hit.shape[1]),
                surrogate_rate=Rate.of(int(lent[i].sum()), hit.shape[1]),
            )
            for i, pseudonym in enumerate(world.attacked_pseudonyms)
        ),
        settings={
            key: ", ".join(map(str, value)) if isinstance(value, list) else value
            for key, value in spec.model_dump(mode="json", exclude={"name", "title"}).items()
        },
        queries=queries,
    )


def _beside_the_verdict(
    images: Image8, verdicts: Verdicts, panel: Panel, world: World, attack: str
) -> dict[str, object]:
    """Return all fields of a record that more than the counts is needed for."""
    from tasks.evaluation import SURROGATE, TARGET
    from tasks.evaluation.intervals import cluster_rate, worst_target
    from tasks.evaluation.panel import closed_hits

    if not verdicts.verdict.size:
        return {}
    hit, draws = verdicts.verdict == TARGET, Draws(world.seed, ("evaluation", attack))
    worst = worst_target(hit)
    found: dict[str, object] = {
        "accuracy_interval": Estimate.of(cluster_rate(hit, draws)),
        "surrogate_interval": Estimate.of(cluster_rate(verdicts.verdict == SURROGATE, draws)),
        "worst_target": WorstTarget(
            pseudonym=world.attacked_pseudonyms[worst.target],
            value=worst.value,
            low=worst.low,
            high=worst.high,
            n=worst.n,
        ),
        "second": _second_opinion(images, verdicts, panel, world, draws),
        "image_metrics": _image_metrics(images, panel, world, draws),
        "knowledge": _knowledge(images, panel, world, draws) if panel.knowledge else None,
        "fleet": _fleet(hit, world, draws),
    }
    if panel.closed is not None:
        hits = closed_hits(panel.closed, images, world.attacked)
        found["paper_accuracy_at_1"] = Rate.of(int(hits.sum()), hits.size)
    return found


def _second_opinion(
    images: Image8, verdicts: Verdicts, panel: Panel, world: World, draws: Draws
) -> SecondOpinion | None:
    from tasks.evaluation import SURROGATE, TARGET, judge
    from tasks.evaluation.intervals import cluster_rate
    from tasks.evaluation.panel import disagreement

    if panel.second is None:
        return None
    said = judge(panel.second, images, world.attacked)
    differ = disagreement(verdicts, said)
    return SecondOpinion(
        architecture=panel.architectures[1],
        accuracy_at_1=Rate.of(int((said.verdict == TARGET).sum()), differ.size),
        surrogate_rate=Rate.of(int((said.verdict == SURROGATE).sum()), differ.size),
        disagreement=Rate.of(int(differ.sum()), differ.size),
        disagreement_interval=Estimate.of(cluster_rate(differ, draws)),
    )


def _image_metrics(images: Image8, panel: Panel, world: World, draws: Draws) -> ImageMetrics | None:
    from tasks.evaluation.panel import set_metrics

    if panel.features is None:
        return None
    found = set_metrics(
        panel.features,
        images,
        world.attacked,
        _real(world, "train"),
        _real(world, "test"),
        draws.child("distances"),
    )
    by_class = list(found.by_class.values())

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in by_class]
        return _six(float(np.mean(values))) if values else None

    return ImageMetrics(
        features=panel.features_of,
        dimensions=found.dimensions,
        real=found.real,
        fake=images.shape[0] * images.shape[1],
        knn_distance=Estimate.of(found.nearest),
        mean_distance=Estimate.of(found.mean),
        feature_distance=Estimate.of(found.centre),
        held_out_distance=_six(found.held_out),
        fid=_six(found.fid),
        kid=_six(found.kid),
        precision=mean("precision"),
        recall=mean("recall"),
        density=mean("density"),
        coverage=mean("coverage"),
        classes=len(by_class),
    )


def _knowledge(images: Image8, panel: Panel, world: World, draws: Draws) -> KnowledgeScore | None:
    from tasks.evaluation.knowledge import knowledge_extraction

    parts = [_real(world, split) for split in ("train", "test")]
    real, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    position = {int(target.label): i for i, target in enumerate(world.attacked)}
    found = knowledge_extraction(
        images, real, np.array([position[int(x)] for x in labels]), draws.child("student")
    )
    if found is None:
        return None
    return KnowledgeScore(
        accuracy=Rate.of(found.hits, found.n), chance=found.chance, trained_on=found.trained_on
    )


def _fleet(hit: np.ndarray, world: World, draws: Draws) -> FleetEstimate | None:
    from tasks.evaluation.sampling import estimate_all, exposed_bound

    if world.sample is None:
        return None
    exposed = np.asarray(hit.any(axis=1))
    return FleetEstimate(
        targets=len(world.targets),
        attacked=len(hit),
        strata=len(world.sample.sizes),
        accuracy_at_1=Estimate.of(
            estimate_all(hit.mean(axis=1), world.sample, draws.child("fleet"))
        ),
        exposed=int(exposed.sum()),
        exposed_at_most=exposed_bound(exposed, world.sample),
    )


def _real(world: World, split: str) -> tuple[Image8, np.ndarray]:
    """Return the attacked targets' own images of a split, and their labels."""
    labels = world.rows["label"].to_numpy().astype(np.int64)
    own = world.mask(split) & np.isin(labels, [int(t.label) for t in world.attacked])
    return world.images[own], labels[own]


def _six(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
