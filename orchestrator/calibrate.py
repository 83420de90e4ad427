"""A calibration: a few real batches of every stage, on as many processes as a sweep would use.

Each process does what a trial does, with less of it: the classifier learns for a few batches, each
attack runs with a tenth of its steps, the panel judges what came out. Several times, so that the
spread is known; beside each other, since processes on one machine slow each other down.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clusters.embedded import embedded_ray
from orchestrator.calibration import RAY, Calibration, Speed, keep, versions
from orchestrator.calibration_task import Measured, measure_task
from orchestrator.images_stage import Progress, images_of
from orchestrator.knowledge import prepare_knowledge
from orchestrator.placement import capacity_now, options, place
from orchestrator.prior_stage import prepare_prior, train_any_prior, trains_prior
from orchestrator.selection import Selection, choose
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from orchestrator.trial import World
from orchestrator.workload import (
    DATA,
    PRIOR,
    READER,
    Unit,
    data_key,
    prior_key,
    reader_key,
    settings_of,
)
from orchestrator.world_stage import prepare_world
from tasks.errors import SpecError
from tasks.workers import most_workers

if TYPE_CHECKING:
    from attacks.knowledge import Knowledge
    from attacks.prior import Prior

PRIOR_STEPS = 60
READER_STEPS = 5

REPEATS = 3
"""Times that each process measures everything."""


def calibrate(
    spec: ExperimentSpec, store: Store, progress: Progress, repeats: int = REPEATS
) -> Calibration:
    """Measure the speed of every stage of an experiment here, and keep it in the storage.

    The experiment's images are decoded, and kept for the sweep.

    Args:
        spec: the experiment.
        store: keeps the calibration.
        progress: called as stages go on.
        repeats: times that each process measures everything.

    Raises:
        SpecError: there is nothing to protect, so nothing to attack.
    """
    import ray

    began = time.monotonic()
    own = Measured()
    started_here = not ray.is_initialized()
    with embedded_ray(spec.compute.cpus):
        if started_here:
            own.add(RAY, "start", "trial", time.monotonic() - began)
        selection = choose(spec, store, progress)
        if not selection.targets:
            raise SpecError(
                "protect.targets is 0, so there is nothing to attack; protect at least one"
            )
        world = _timed_world(spec, store, selection, progress, own)
        prior = _timed_prior(spec, store, selection, progress, own)
        knowledge = _timed_knowledge(spec, store, selection, progress, own)
        there, workers = capacity_now(), most_workers(spec.training.workers)
        placed = place(
            there,
            workers=spec.training.workers,
            trials=len(settings_of(spec)),
            limit=spec.compute.concurrent_trials,
            gpus_per_trial=spec.compute.gpus_per_trial,
        )
        at_once = placed.slots * workers
        task = ray.remote(**options(placed.task), max_retries=1)(measure_task)
        shared = (ray.put(world), ray.put(prior), ray.put(knowledge))
        left = [task.remote(spec, *shared, repeats, time.time()) for _ in range(at_once)]
        found = [own]
        while left:
            progress("calibration", at_once - len(left), at_once)
            done, left = ray.wait(left, num_returns=1)
            found += ray.get(done)
        progress("calibration", at_once, at_once)
    made = Calibration(
        device=_device(found),
        unit="GPU" if there.gpus else "core",
        at_once=at_once,
        versions=versions(),
        made=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        took_s=round(time.monotonic() - began, 1),
        speeds=_merged(found),
    )
    keep(store, made)
    return made


def _device(found: Sequence[Measured]) -> str:
    """Return what the processes ran on: a node's device may be another than the driver's."""
    return next(one.device for one in found if one.device)


def _merged(found: Sequence[Measured]) -> dict[str, Speed]:
    merged: dict[str, list[float]] = {}
    named: dict[str, tuple[str, Unit]] = {}
    for one in found:
        named |= one.speeds
        for key, seconds in one.seconds.items():
            merged.setdefault(key, []).extend(seconds)
    return {
        key: Speed(
            stage=named[key][0],
            unit=named[key][1],
            seconds=tuple(float(f"{s:.6g}") for s in many),
        )
        for key, many in merged.items()
    }


def _timed_world(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress, own: Measured
) -> World:
    """Decode what all trials share; where it was not there yet, that is a measurement."""
    before = _image_folders(store)
    started = time.monotonic()
    world = prepare_world(spec, store, selection, progress)
    if _image_folders(store) != before:
        own.add(data_key(spec), DATA, "image", time.monotonic() - started, len(world.images))
    return world


def _image_folders(store: Store) -> set[str]:
    return {path.parent.name for path in (store.root / "artifacts/images").glob("*/manifest.json")}


def _timed_prior(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress, own: Measured
) -> Prior:
    """Return the prior; one that has to be trained is trained for some steps only."""
    if not trains_prior(spec):
        return prepare_prior(spec, store, selection, progress)[0]
    from attacks.prior_resize import fit_prior

    _, images, digest = images_of(spec, store, selection.split("public"), "public", progress)
    gan = spec.prior.gan.model_copy(update={"steps": min(spec.prior.gan.steps, PRIOR_STEPS)})
    short = spec.prior.model_copy(update={"steps": min(spec.prior.steps, PRIOR_STEPS), "gan": gan})
    marks: list[tuple[int, float]] = []
    prior = train_any_prior(
        spec.model_copy(update={"prior": short}),
        store,
        images,
        f"calibration-{digest}",
        lambda step, steps, loss: marks.append((step, time.monotonic())),
    )
    for (a, then), (b, now) in zip(marks, marks[1:], strict=False):
        own.add(prior_key(spec), PRIOR, "step", now - then, b - a)
    return fit_prior(prior, spec.data.image_size, spec.prior.crop)


def _timed_knowledge(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress, own: Measured
) -> Knowledge | None:
    """Return what the adaptive attacker knows, by a reader that hardly learned to read."""
    attacks = spec.adaptive_attacks
    prepare_knowledge(spec, attacks, store, selection, progress, 1)  # decodes what it learns on
    started = time.monotonic()
    found = prepare_knowledge(spec, attacks, store, selection, progress, READER_STEPS)
    if found is not None:
        own.add(reader_key(spec), READER, "step", time.monotonic() - started, READER_STEPS)
    return found
