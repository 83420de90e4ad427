"""What `dcdctl plan` says: what would be trained on, counted from metadata, and its cost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from rich.console import Console
from rich.table import Table

from orchestrator.estimate import Cost
from orchestrator.named_cluster import named_cluster, this_machine
from orchestrator.plan_costs import cost_of, cost_of_large, render_cost
from orchestrator.plan_tally import held_rows, large_rows, rows_in_order
from orchestrator.progress import Display
from orchestrator.selection import Selection, choose
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from orchestrator.workload import settings_of
from tasks.spec import Spec


class PlanReport(Spec):
    """What would be trained on and attacked, counted without reading a pixel."""

    targets: dict[str, str] = Field(description="Pseudonym of each target: of its surrogate.")
    counts: dict[str, int]
    rows_before: int
    rows_after: int
    inflation: float
    received: float = Field(
        description="Wrongly labelled images that the class with the most of them receives, for "
        "each training image of its own."
    )
    fingerprint: str
    trials: int
    training_rows: int = Field(
        description="Row passes over all trials: rows times epochs, each trial's own."
    )
    generator_images: int = Field(description="Images that attacks synthesise over all trials.")
    core_minutes: tuple[float, float] = Field(
        description="Estimate, low and high, from speeds measured on two cores."
    )
    gpu_hours: tuple[float, float] | None = Field(
        None,
        description="Estimate for one GPU from counted operations, judges included; null at 64 "
        "pixels and less.",
    )
    cost: Cost | None = Field(
        None, description="By stage, from measured speeds; null where none was measured."
    )

    def render(self, console: Console) -> None:
        """Print it for people."""
        table = Table(box=None, pad_edge=False)
        table.add_column("role")
        table.add_column("rows", justify="right")
        for role, count in self.counts.items():
            if count:
                table.add_row(role.replace("_", " "), f"{count:,}")
        console.print(table)
        low, high = self.core_minutes
        known = self.cost is not None and self.cost.hours is not None
        guess = "" if known else f": about {low:.0f} to {high:.0f} core-minutes"
        console.print(
            f"{len(self.targets)} protected; training rows {self.rows_before:,} -> "
            f"{self.rows_after:,}, {self.inflation:.2f} times the targets' own\n"
            f"no other class receives more than {self.received:.2f} wrongly labelled images for "
            f"each of its own{_flooded(self.received)}\n"
            f"a sweep of {self.trials} trials and the control trains on "
            f"{self.training_rows:,} rows and synthesises {self.generator_images:,} images{guess}\n"
            f"{_gpu(self.gpu_hours)}plan {self.fingerprint}; nothing was trained for it",
            highlight=False,
        )
        if self.cost is not None:
            render_cost(self.cost, console)


def _gpu(hours: tuple[float, float] | None) -> str:
    if hours is None:
        return ""
    from orchestrator.gpu_hours import TFLOPS

    return (
        f"on a GPU that sustains {TFLOPS[1]:g} to {TFLOPS[0]:g} TFLOP/s, judges included: about "
        f"{hours[0]:,.0f} to {hours[1]:,.0f} hours\n"
    )


def _flooded(received: float) -> str:
    if received <= FLOODED:
        return ""
    return ": its accuracy will suffer; set dcd.max_received_fraction, or protect fewer"


FLOODED = 1.0
"""Wrong labels for each own image above which a class is hardly itself any more."""

TRAIN_ROWS_PER_S = (500, 1500)
"""Small residual net of width 24 at 32 pixels on one core, without and with bfloat16."""

ATTACK_IMAGES_PER_S = (500, 2000)
"""Prior and classifier on one core: with a gradient, and scores only."""


def plan_summary(
    spec: ExperimentSpec,
    *,
    cluster: str | None = None,
    calibrated: bool = False,
    console: Console | None = None,
) -> PlanReport:
    """Count what the experiment's own recipe makes, and what a sweep would cost.

    Args:
        spec: the experiment.
        cluster: the file of one where it would run; None is this machine.
        calibrated: measure the speed of every stage first; images are decoded for that.
        console: for the calibration's progress.
    """
    from orchestrator.gpu_hours import gpu_hours
    from orchestrator.large_data import large_data

    store = Store(spec.storage)
    where = this_machine(spec.compute.cpus) if cluster is None else named_cluster(cluster)
    if calibrated:
        from orchestrator.calibrate import calibrate

        display = Display(console or Console(stderr=True))
        with store.locked(), display.live():
            calibrate(spec, store, display.stage)
    large = large_data(spec)
    if large is not None:
        selection, lent, own = large.selection, large.lent, large.protected
        rows_of = large_rows(large, spec.seed)
        cost = cost_of_large(spec, store, large, where, rows_of)
    else:
        selection = choose(spec, store, lambda *_: None)
        rows = rows_in_order(selection)
        lent = selection.split("surrogate").num_rows
        own = _own_rows(rows, selection)
        rows_of = held_rows(selection, rows, spec.seed)
        cost = cost_of(spec, store, selection, where, rows_of)
    plan, before = rows_of.tally(spec.dcd), rows_of.before
    settings = settings_of(spec)
    trials = len(settings) - 1
    training = sum(setting.training.passes * rows_of(setting.dcd) for setting in settings)
    images = (trials + 1) * _attack_images(spec, len(selection.targets))
    scale = (spec.data.image_size / 32) ** 2
    low, high = (
        scale * (training / TRAIN_ROWS_PER_S[i] + images / ATTACK_IMAGES_PER_S[i]) / 60
        for i in (1, 0)
    )
    public_key = str(spec.seed) if spec.data.kind == "builtin" else None
    return PlanReport(
        targets={
            store.pseudonym(t.identity, public_key=public_key): ", ".join(
                store.pseudonym(who.identity, public_key=public_key) for who in t.lenders
            )
            for t in selection.targets
        },
        counts=plan.counts,
        rows_before=before,
        rows_after=plan.rows,
        inflation=round((plan.rows - before + own) / own if own else 1.0, 4),
        received=round(plan.received, 4),
        fingerprint=plan.fingerprint,
        trials=trials,
        training_rows=training,
        generator_images=images,
        core_minutes=(round(low, 1), round(high, 1)),
        gpu_hours=gpu_hours(spec, training, before + lent, images),
        cost=cost,
    )


def _own_rows(rows: pa.Table, selection: Selection) -> int:
    """Return how many training rows the targets have."""
    own = np.isin(rows["label"].to_numpy(), [int(target.label) for target in selection.targets])
    train = pc.equal(rows["split"], "train").to_numpy(zero_copy_only=False)
    return int(np.count_nonzero(own & train))


def _attack_images(spec: ExperimentSpec, targets: int) -> int:
    """Return how many images all attacks synthesise against one model, at the most."""
    from attacks.registry import make_attack

    return sum(make_attack(attack).images(targets) for attack in spec.attacks)
