"""From an experiment's metadata and the speeds in its storage to what it will cost."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from orchestrator.calibration import all_of, read, speeds_for
from orchestrator.estimate import Cost, Range, StageCost, estimate
from orchestrator.images_stage import images_key
from orchestrator.judges import is_trained, judges_for
from orchestrator.large_data import LargeData
from orchestrator.named_cluster import NamedCluster
from orchestrator.plan_tally import PlannedRows, held_rows, rows_in_order
from orchestrator.prior_stage import prior_key, trains_prior
from orchestrator.public_weights import public_folder, public_people
from orchestrator.selection import Selection
from orchestrator.spec import ExperimentSpec
from orchestrator.store import MANIFEST, Store, records_of
from orchestrator.trial import starts_public
from orchestrator.workload import (
    DATA,
    JUDGES,
    PRIOR,
    PUBLIC,
    Counts,
    Workload,
    settings_of,
    workload,
)
from orchestrator.world_stage import world_digest
from tasks.device import device_name


def cost_of(
    spec: ExperimentSpec,
    store: Store,
    selection: Selection,
    cluster: NamedCluster,
    rows_of: PlannedRows,
) -> Cost:
    """Return what is left of an experiment will cost on a cluster.

    Args:
        spec: the experiment.
        store: holds speeds, and what is made already.
        selection: who is protected.
        cluster: where it would run.
        rows_of: training rows under a recipe.
    """
    from orchestrator.sweep import run_fingerprint

    counts, ready = _counts(spec, store, selection)
    run = store.run(run_fingerprint(spec, selection))
    work = workload(
        spec,
        counts,
        rows_of,
        ready=ready,
        done=frozenset(record.index for record in records_of(run)),
        trains_prior=trains_prior(spec),
    )
    return _estimated(spec, store, cluster, work)


def cost_of_large(
    spec: ExperimentSpec,
    store: Store,
    large: LargeData,
    cluster: NamedCluster,
    rows_of: PlannedRows,
) -> Cost:
    """Return what an experiment will cost whose rows are never held.

    What the storage has of it already is not looked for: that is known by every row.
    """
    targets = len(large.selection.targets)
    counts = Counts(
        targets=targets,
        attacked=min(spec.evaluation.sample_targets or targets, targets),
        decode=large.train + large.test + large.lent,
        judge_rows=large.train + large.lent,
    )
    work = workload(spec, counts, rows_of, trains_prior=trains_prior(spec))
    return _estimated(spec, store, cluster, work)


def _estimated(spec: ExperimentSpec, store: Store, cluster: NamedCluster, work: Workload) -> Cost:
    device = device_name()
    made = read(store, device)
    if not cluster.here and cluster.gpus:
        # Speeds of a processor say nothing of a GPU: those of whatever GPU was calibrated do.
        made = next(iter(all_of(store, "GPU")), None)
        device = "a GPU, not calibrated" if made is None else made.device
    known = speeds_for(store, device, made)
    return estimate(spec, work, known, cluster, device if known else None)


def expected_trial_hours(spec: ExperimentSpec, store: Store, selection: Selection) -> float | None:
    """Return the device-hours that nine of ten trials stay below; None where nobody knows."""
    from orchestrator.named_cluster import this_machine

    if not speeds_for(store, device_name(), read(store, device_name())):
        return None
    rows_of = held_rows(selection, rows_in_order(selection), spec.seed)
    cost = cost_of(spec, store, selection, this_machine(spec.compute.cpus), rows_of)
    return None if cost.trial_hours is None else cost.trial_hours.p90


def _counts(
    spec: ExperimentSpec, store: Store, selection: Selection
) -> tuple[Counts, frozenset[str]]:
    """Return what there is to decode, to judge and to attack, and what is there already."""
    private = selection.split("train", "test")
    parts = [("private", private)]
    if selection.targets:
        parts.append(("lent", selection.split("surrogate")))
    keys = [images_key(spec, part) for _, part in parts]
    names = [f"{name}-{key}" for (name, _), key in zip(parts, keys, strict=True)]
    decode = sum(part.num_rows for _, part in parts)
    public = selection.split("public")
    ready: set[str] = set()
    if trains_prior(spec):
        key = images_key(spec, public)
        names.append(f"public-{key}")
        decode += public.num_rows
        if _made(store.artifact("prior", prior_key(spec, key))):
            ready.add(PRIOR)
    learnt = 0
    if any(starts_public(setting.training) for setting in settings_of(spec)):
        people = public_people(selection)
        learnt = people.num_rows
        key = images_key(spec, people)
        names.append(f"pretraining-{key}")
        decode += learnt
        if _made(public_folder(spec, store, key)):
            ready.add(PUBLIC)
    if all(_made(store.artifact("images", name)) for name in names):
        ready.add(DATA)
    if all(is_trained(j) for j in judges_for(spec, world_digest(keys, selection), store)):
        ready.add(JUDGES)
    attacked = min(spec.evaluation.sample_targets or len(selection.targets), len(selection.targets))
    counts = Counts(
        targets=len(selection.targets),
        attacked=attacked,
        decode=decode,
        judge_rows=sum(part.num_rows for _, part in parts) - selection.split("test").num_rows,
        public_rows=learnt,
        attributes=bool(pc.any(pc.greater(pc.list_value_length(public["attributes"]), 0)).as_py()),
    )
    return counts, frozenset(ready)


def _made(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def render_cost(cost: Cost, console: Console) -> None:
    """Print it for people."""
    if cost.hours is None:
        console.print(
            "no speed was measured here: dcdctl plan --calibrate runs a few batches of every stage,"
            " and gives hours, wall-clock and money",
            highlight=False,
        )
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column(f"{cost.unit}-hours, P50", justify="right")
    table.add_column("P90", justify="right")
    table.add_column("from")
    for row in cost.stages:
        table.add_row(row.stage, *_both(row.hours), _source(row))
    label = "all together" if not cost.unknown else "all that is known"
    table.add_row(label, *_both(cost.hours), "")
    console.print(table)
    left = f"{cost.trials_left} trials" + (
        f" ({cost.trials_done} more are done)" if cost.trials_done else ""
    )
    where = (
        f"{left} on {cost.cluster}, {cost.nodes} node{'s' * (cost.nodes != 1)}, "
        f"{cost.trials_at_once} at once"
    )
    if cost.wall_s is None:
        console.print(
            f"{where}; not known: {', '.join(cost.unknown)}, so neither is the time: "
            "dcdctl plan --calibrate measures them",
            highlight=False,
        )
    else:
        console.print(
            f"{where}: {_time(cost.wall_s.p50)} (P50), {_time(cost.wall_s.p90)} (P90)",
            highlight=False,
        )
    if cost.money is not None and cost.hour_price is not None:
        console.print(
            f"money: {_amounts(cost.money)} at {cost.hour_price:g} a {cost.unit}-hour, which is "
            "what --max-cost counts",
            highlight=False,
        )
    if cost.bill is not None:
        console.print(f"the cluster's bill while it stands: {_amounts(cost.bill)}", highlight=False)
    for note in cost.notes:
        console.print(note, highlight=False)


def _both(hours: Range | None) -> tuple[str, str]:
    if hours is None:
        return "?", "?"
    return f"{hours.p50:.3g}", f"{hours.p90:.3g}"


def _source(row: StageCost) -> str:
    if row.hours is None:
        return "not known"
    if row.source is None:
        return "computed"
    return f"{row.source} ({row.samples})"


def _amounts(money: Range) -> str:
    return f"{money.p50:,.2f} (P50), {money.p90:,.2f} (P90)"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
