"""Screening: clear verdicts on targets for a small part of the budget.

Every attack runs in blocks. After each, the judge's hits on a target are tested; who is clearly
exposed or clearly protected leaves, and only the others are attacked again. A candidate that is
clearly worse leaves a search early too (`attacks/rejection.py`). What a full budget would say is
one flag away, and benchmarks/screening.py compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table

from orchestrator.spec import ScreeningSpec
from tasks.spec import Spec

if TYPE_CHECKING:
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from orchestrator.trial import World
    from tasks.classifiers import Classifier

Verdict = Literal["exposed", "protected", "undecided"]


class ScreenedTarget(Spec):
    """One target under one attack, when it left or the budget ended."""

    pseudonym: str
    verdict: Verdict
    hits: int
    n: int = Field(description="Reconstructions that were judged.")
    low: float = Field(description="This and `high`: an interval that holds whenever one stops.")
    high: float
    blocks: int = Field(description="After which it left.")


class ScreenRecord(Spec):
    """What one attack says of all targets, and what it cost."""

    name: str
    targets: tuple[ScreenedTarget, ...]
    blocks: int = Field(description="That were run.")
    queries: int = Field(ge=0, description="Images that the target classifier was shown.")

    def count(self, verdict: Verdict) -> int:
        """Return on how many targets that is the verdict."""
        return sum(target.verdict == verdict for target in self.targets)


def screen(
    attack: AttackSpec,
    classifier: Classifier,
    prior: Prior,
    world: World,
    judge: Classifier,
    spec: ScreeningSpec,
    *,
    whole: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ScreenRecord:
    """Attack in blocks until every target has a verdict, or all blocks are run.

    Args:
        attack: the attack; its pool and its search are made smaller as `spec` says.
        classifier: the attacked one.
        prior: the attacker's generator.
        world: who is attacked, and the seed.
        judge: an evaluation classifier, which the attack never sees.
        spec: blocks, and the rates between which is tested.
        whole: run all blocks on all targets with the attack as it is: the full budget.
        progress: called with the targets that are decided and all of them.
    """
    from attacks.registry import make_attack
    from attacks.sharding import attack_devices, attack_on
    from orchestrator.attacking import stored
    from tasks.draws import Draws
    from tasks.evaluation import TARGET
    from tasks.evaluation import judge as say_whom
    from tasks.evaluation.sequential import SequentialTest, anytime_interval

    test = SequentialTest(spec.protected_rate, spec.exposed_rate, spec.error)
    used = attack if whole else lighter(attack, spec)
    count = len(world.attacked)
    hits, n, blocks = (np.zeros(count, np.int64) for _ in range(3))
    verdicts: list[Verdict] = ["undecided"] * count
    left, queries, done = list(range(count)), 0, 0
    while left and done < spec.blocks:
        targets = [world.attacked[i] for i in left]
        method = make_attack(used, world.knowledge)
        draws = Draws(world.seed, (attack.label, "block", done))
        result, asked = attack_on(attack_devices(), method, classifier, prior, targets, draws)
        images = stored(result.images)
        found = say_whom(judge, images, targets).verdict == TARGET
        hits[left] += found.sum(axis=1)
        n[left] += found.shape[1]
        done += 1
        queries += asked
        for i in left:
            blocks[i] = done
            verdicts[i] = test.verdict(int(hits[i]), int(n[i]))
        if not whole:
            left = [i for i in left if verdicts[i] == "undecided"]
        if progress is not None:
            progress(count - len(left), count)
    ends = [anytime_interval(int(h), int(m)) for h, m in zip(hits, n, strict=True)]
    return ScreenRecord(
        name=attack.label,
        targets=tuple(
            ScreenedTarget(
                pseudonym=pseudonym,
                verdict=verdicts[i],
                hits=int(hits[i]),
                n=int(n[i]),
                low=round(ends[i][0], 6),
                high=round(ends[i][1], 6),
                blocks=int(blocks[i]),
            )
            for i, pseudonym in enumerate(world.attacked_pseudonyms)
        ),
        blocks=done,
        queries=queries,
    )


def lighter(attack: AttackSpec, spec: ScreeningSpec) -> AttackSpec:
    """Return the attack as it screens: a smaller pool, and rungs where its search has them."""
    from attacks.spec import PpaSpec

    changes: dict[str, object] = {}
    pool = getattr(attack, "pool", None)
    if pool is not None:
        changes["pool"] = min(pool, spec.pool)
    if isinstance(attack, PpaSpec) and not attack.rungs:
        changes["rungs"] = tuple(rung for rung in spec.rungs if rung < attack.steps)
    return attack.model_copy(update=changes)


def render_screening(records: tuple[ScreenRecord, ...], console: Console) -> None:
    """Print verdicts for people: a line for each target that is not protected, and the counts."""
    table = Table(box=None, pad_edge=False)
    headings = ("attack", "exposed", "undecided", "protected", "blocks", "queries")
    for heading in headings:
        table.add_column(heading)
    for record in records:
        counts = [str(record.count(v)) for v in ("exposed", "undecided", "protected")]
        table.add_row(record.name, *counts, str(record.blocks), f"{record.queries:,}")
    console.print(table)
    for record in records:
        for target in record.targets:
            if target.verdict != "protected":
                console.print(
                    f"{record.name}  {target.pseudonym}  {target.verdict}: {target.hits} of "
                    f"{target.n} [{target.low:.2f}, {target.high:.2f}]",
                    highlight=False,
                )
