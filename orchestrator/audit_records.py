"""What an audit says: hits of each identity with their intervals, and the verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from orchestrator.records import Rate
from tasks.errors import EndpointError, ExposedError, QueryBudgetError, UndecidedError
from tasks.spec import Spec

Verdict = Literal["exposed", "undecided", "not shown to be exposed", "not judged"]
"""On one identity, and on all of them; the first that holds for anybody is that of all."""

WORST_FIRST: tuple[Verdict, ...] = (
    "exposed",
    "undecided",
    "not judged",
    "not shown to be exposed",
)

KNOWN = 0.5
"""Share of a person's real images that judge and model must name rightly; with less nothing follows
from reconstructions that they do not recognise."""

MODEL_ONLY = (
    "without real images of the people (--images) or a judge (--judge) only the attacked model's "
    "own confidence is known; it is no attack accuracy, and nobody is judged"
)


class ModelSummary(Spec):
    """What was audited."""

    kind: Literal["state", "checkpoint", "factory", "endpoint"]
    name: str = Field(description="A hash of the weights, a factory's name, or an address.")
    architecture: str
    access: Literal["white-box", "scores"]
    num_classes: int
    image_size: int
    on_real_images: Rate | None = Field(
        None, description="Its right answers on the real images of those attacked."
    )


class JudgeSummary(Spec):
    """Who says whom a reconstruction shows."""

    kind: Literal["trained", "checkpoint"]
    architecture: str
    classes: int
    on_real_images: Rate | None = Field(
        description="Its right answers on images of those attacked that it was not trained on."
    )


class IdentityAttack(Spec):
    """One attack on one identity."""

    name: str
    hits: Rate | None = Field(description="Reconstructions judged to show the person; or unjudged.")
    reconstructions: int
    confidence: float | None = Field(
        description="Highest confidence of the attacked model, of those that are counted."
    )


class IdentityExposure(Spec):
    """How exposed one person is."""

    pseudonym: str
    verdict: Verdict
    attacks: tuple[IdentityAttack, ...]
    judge_knows: Rate | None = Field(
        None, description="Right answers of the judge on their images."
    )
    model_knows: Rate | None = Field(None, description="The same of the attacked model.")


class AttackMean(Spec):
    """One attack over all identities."""

    name: str
    access: Literal["white-box", "scores", "label-only"]
    hits: Rate | None = Field(description="Over all reconstructions; those of a seed are related.")
    seeds: tuple[int, ...] = Field(description="Seeds that it finished.")
    queries: int = Field(description="Images that the audited model was shown.")
    complete: bool
    settings: dict[str, float | int | str | bool | None]


class AuditOutcome(Spec):
    """The result of `dcdctl audit`."""

    format: Literal["dcdctl-audit/1"] = "dcdctl-audit/1"
    verdict: Verdict
    max_attack_accuracy: float
    model: ModelSummary
    judge: JudgeSummary | None
    identities: tuple[IdentityExposure, ...] = Field(description="Worst first.")
    attacks: tuple[AttackMean, ...]
    seeds: tuple[int, ...] = Field(description="Asked for.")
    queries: int
    query_budget: int | None
    stopped_by: Literal["budget", "endpoint"] | None = None
    stopped: str | None = Field(None, description="Why it ended early.")
    notes: tuple[str, ...] = ()
    seconds: float
    out: str

    def render(self, console: Console) -> None:
        """Print it for people, the worst first."""
        table = Table(box=None, pad_edge=False)
        table.add_column("identity")
        for mean in self.attacks:
            table.add_column(mean.name + ("" if mean.complete else " (incomplete)"))
        table.add_column("verdict")
        for one in self.identities:
            by_name = {attack.name: attack for attack in one.attacks}
            cells = [_cell(by_name.get(mean.name)) for mean in self.attacks]
            table.add_row(one.pseudonym, *cells, one.verdict)
        means = ["-" if mean.hits is None else _rate(mean.hits) for mean in self.attacks]
        table.add_row("all", *means, self.verdict)
        console.print(table)
        lines = [
            f"{self.queries:,} queries"
            + ("" if self.query_budget is None else f" of {self.query_budget:,}")
            + f", {len(self.seeds)} seeds, {self.seconds:.0f} s; {_judged_by(self.judge)}"
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"incomplete: {self.stopped}"] if self.stopped else []
        lines += [f"result: {self.out}"]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    def require_pass(self) -> None:
        """Fail unless everybody is judged, and nobody shown to be exposed.

        Raises:
            ExposedError: somebody is exposed; that stays true however the audit ended.
            QueryBudgetError, EndpointError: it ended early.
            UndecidedError: somebody is undecided or not judged.
        """
        count = len(self.identities)
        bound = f"{self.max_attack_accuracy:.0%}"
        if self.verdict == "exposed":
            bad = sum(one.verdict == "exposed" for one in self.identities)
            raise ExposedError(
                f"{bad} of {count} identities are exposed: an attack on them succeeds in more than "
                f"{bound} of its tries; do not hand this model out"
            )
        if self.stopped is not None:
            raise {"budget": QueryBudgetError, "endpoint": EndpointError}[str(self.stopped_by)](
                f"the audit is incomplete: {self.stopped}"
            )
        if self.judge is None:
            raise UndecidedError(MODEL_ONLY)
        if self.verdict != "not shown to be exposed":
            open_ = sum(one.verdict == "undecided" for one in self.identities)
            raise UndecidedError(
                f"{open_} of {count} identities are undecided at {bound}; raise --seeds, or see "
                "the notes"
            )


def _cell(attack: IdentityAttack | None) -> str:
    if attack is None or not attack.reconstructions:
        return "-"
    if attack.hits is not None:
        return _rate(attack.hits)
    if attack.confidence is None:
        return f"n={attack.reconstructions}"
    return f"confidence {attack.confidence:.2f} (n={attack.reconstructions})"


def _rate(rate: Rate) -> str:
    return f"{rate.successes}/{rate.n} [{rate.low:.2f}, {rate.high:.2f}]"


def _judged_by(judge: JudgeSummary | None) -> str:
    if judge is None:
        return "not judged"
    how = "trained for this" if judge.kind == "trained" else "given"
    known = "not checked" if judge.on_real_images is None else f"right on {judge.on_real_images}"
    return f"judge: {judge.architecture}, {how}, {known}"


def verdict_on(
    attacks: Sequence[Rate | None],
    bound: float,
    *,
    complete: bool,
    known: Sequence[Rate | None] = (),
) -> Verdict:
    """Say of one identity whether it is exposed.

    Exposed: the lower end of some attack's interval is above the bound. Not shown to be exposed:
    the upper end of every attack's is at most the bound, all attacks are complete, and everybody
    who looked knows the person. Otherwise undecided.

    Args:
        attacks: hits of each attack; None was not judged.
        bound: attack accuracy that is accepted.
        complete: all attacks ended.
        known: right answers of the judge and of the model on the person's own images.
    """
    judged = [rate for rate in attacks if rate is not None]
    if any(rate.low > bound for rate in judged):
        return "exposed"
    if not judged:
        return "not judged" if complete else "undecided"
    safe = len(judged) == len(attacks) and all(rate.high <= bound for rate in judged)
    strangers = any(rate is not None and rate.value < KNOWN for rate in known)
    return "not shown to be exposed" if safe and complete and not strangers else "undecided"


def verdict_of_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst: one exposed person is enough."""
    return min(verdicts, key=WORST_FIRST.index)


def worst_first(identities: Sequence[IdentityExposure]) -> tuple[IdentityExposure, ...]:
    """Return identities by verdict, then by how much was found, then by name."""

    def key(one: IdentityExposure) -> tuple[int, float, float, str]:
        rates = [attack.hits.low for attack in one.attacks if attack.hits is not None]
        values = [attack.hits.value for attack in one.attacks if attack.hits is not None]
        sure = [attack.confidence or 0.0 for attack in one.attacks]
        found = max(values, default=max(sure, default=0.0))
        return (WORST_FIRST.index(one.verdict), -max(rates, default=0.0), -found, one.pseudonym)

    return tuple(sorted(identities, key=key))
