"""Did the levers do what the theory says? Loss and curvature around samples, trial and control.

The paper's claim: around surrogate samples the loss of the target's label is low and flat, around
the target's own it is high and steep, so that an attack runs into the surrogate's basin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor

from orchestrator.finished_run import load_run
from orchestrator.progress import Display
from orchestrator.records import Estimate, TrialRecord
from orchestrator.store import Store, write_atomic
from tasks.draws import Draws
from tasks.errors import StoreError
from tasks.spec import Spec
from tasks.types import UNIT

if TYPE_CHECKING:
    from orchestrator.trial import World
    from tasks.classifiers import Classifier, TorchClassifier

RADII = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Of the loss along random directions: sigma of the noise, unit range."""

POOL = 2000
"""Latents of the prior among which those nearest to target and surrogate are looked for."""

KINDS = {
    "target": "the target's test images",
    "target_trained": "the target's training images",
    "surrogate": "the surrogate's images",
}


class Around(Spec):
    """The loss of the target's label around one kind of image; intervals are over targets."""

    loss: Estimate
    pixel_trace: Estimate = Field(description="Of the Hessian in pixels, unit range.")
    latent_trace: Estimate | None = Field(
        None, description="Along w, at the prior's likenesses; none for training images."
    )
    along: tuple[float, ...] = Field(description="Mean loss at each radius.")


class Landscape(Spec):
    """Trial and control side by side."""

    trial_id: str
    trial: int
    radii: tuple[float, ...] = RADII
    targets: int
    images: int = Field(description="Of each target and kind.")
    probes: int = Field(description="Of the trace, for each image.")
    control: dict[str, Around]
    defended: dict[str, Around]
    differences: dict[str, Estimate] = Field(description="Paired by target.")
    verdict: str

    def render(self, console: Console) -> None:
        """Print it for people."""
        table = Table(box=None, pad_edge=False)
        for heading in ("around", "model", "loss", "trace in pixels", "trace along w"):
            table.add_column(heading)
        for kind, words in KINDS.items():
            for model, found in (("control", self.control), (f"trial {self.trial}", self.defended)):
                around = found[kind]
                traces = (around.pixel_trace, around.latent_trace)
                cells = ["-" if one is None else _short(one) for one in traces]
                table.add_row(words, model, _short(around.loss), *cells)
        console.print(table)
        console.print(
            f"n = {self.targets} targets x {self.images} images, {self.probes} probes; brackets: "
            f"95 %, cluster bootstrap over targets\n{self.verdict}",
            highlight=False,
        )


def landscape(
    run: Path, console: Console, *, trial: int | None = None, images: int = 8, probes: int = 8
) -> Landscape:
    """Measure a run's trial against its control; write landscape.json, .png and .svg beside it.

    Args:
        run: the run's folder, in its storage.
        console: for progress.
        trial: index; None takes the recommended one, or the nearest to the goals.
        images: of each target and kind, at the most.
        probes: of the trace, for each image.

    Raises:
        StoreError: the folder holds no run, no control, or not that trial.
    """
    from clusters.embedded import embedded_ray
    from orchestrator.forgotten import require_whole
    from orchestrator.judges import judges_of, load_panel, train_judges
    from orchestrator.landscape_plot import landscape_figure
    from orchestrator.prior_stage import prepare_prior
    from orchestrator.selection import choose
    from orchestrator.world_stage import prepare_world

    require_whole(run)
    found = load_run(run)
    control = _trial_of(run, found.records, 0)
    defended = _trial_of(run, found.records, _focus(run) if trial is None else trial)
    spec = found.spec.model_copy(update={"storage": str(run.absolute().parents[1])})
    store, display = Store(spec.storage), Display(console)
    with store.locked(), embedded_ray(spec.compute.cpus), display.live():
        selection = choose(spec, store, display.stage)
        world = prepare_world(spec, store, selection, display.stage)
        prior, _ = prepare_prior(spec, store, selection, display.stage)
        judges = train_judges(judges_of(spec, world, store)[:1], world, display.stage)
        torch.set_num_threads(1 if spec.data.image_size <= 64 else torch.get_num_threads())
        samples = _samples(world, images)
        judge = load_panel(spec, judges).first
        latents = _likenesses(judge, prior, world, samples["target"].shape[1])
        measured = []
        for done, record in enumerate((control, defended)):
            display.stage("models", done, 2)
            model = _float32(run / "trials" / record.trial_id / "checkpoint")
            measured.append(_measure(model, samples, latents, _images_of(prior), world, probes))
        display.stage("models", 2, 2)
    outcome = _compare(
        defended, measured[0], measured[1], samples["target"].shape[1], probes, world.seed
    )
    figure = landscape_figure(outcome)
    write_atomic(run / "landscape.json", outcome.model_dump_json(indent=2) + "\n")
    write_atomic(run / "landscape.png", figure.png())
    write_atomic(run / "landscape.svg", figure.svg())
    return outcome


@dataclass(frozen=True)
class _Measured:
    """One model: values (targets, images) by kind, and the loss along (targets, images, radii)."""

    loss: dict[str, np.ndarray]
    pixels: dict[str, np.ndarray]
    latents: dict[str, np.ndarray]
    along: dict[str, np.ndarray]


def _focus(run: Path) -> int:
    from orchestrator.summary import summarise

    found = load_run(run)
    summary = summarise(found.spec, found.records, str(run))
    record = found.record(summary.focus)
    if record is None:
        raise StoreError(
            f"{run} holds no finished trial with a defence; resume the sweep, then ask again"
        )
    return record.index


def _trial_of(run: Path, records: object, index: int) -> TrialRecord:
    assert isinstance(records, list)
    for record in records:
        if record.index == index and record.status == "ok":
            if not (run / "trials" / record.trial_id / "checkpoint" / "meta.json").is_file():
                raise StoreError(
                    f"trial {index} of {run} has no checkpoint; delete its folder and resume"
                )
            assert isinstance(record, TrialRecord)
            return record
    what = "control" if index == 0 else f"trial {index}"
    raise StoreError(f"{run} holds no finished {what}; resume the sweep, or name another trial")


def _samples(world: World, images: int) -> dict[str, Tensor]:
    """Return images (targets, n, 3, s, s) by kind, the first n of each; n is what all can give."""
    from tasks.evaluation import to_unit

    labels = world.rows["label"].to_numpy()
    identities = world.rows["identity"].to_numpy(zero_copy_only=False)
    rows: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for target in world.attacked:
        own = labels == int(target.label)
        lent = np.isin(identities, [str(who.identity) for who in target.surrogates])
        rows["target"].append(np.flatnonzero(own & world.mask("test")))
        rows["target_trained"].append(np.flatnonzero(own & world.mask("train")))
        rows["surrogate"].append(np.flatnonzero(lent & world.mask("surrogate")))
    count = min(images, *(len(some) for kind in rows.values() for some in kind))
    if count == 0:
        raise StoreError("a target or a surrogate has no image to look at; nothing was measured")
    return {
        kind: torch.stack([to_unit(world.images[some[:count]]) for some in found])
        for kind, found in rows.items()
    }


def _likenesses(judge: Classifier, prior: object, world: World, count: int) -> dict[str, Tensor]:
    """Return the latents (targets, n, w) that the judge finds most like target and surrogate.

    The judge never saw the protected data: which latents are looked at does not depend on a trial.
    """
    from attacks.pool import score_pool

    pool = score_pool(judge, prior, POOL, Draws(world.seed, ("landscape", "pool")))  # type: ignore[arg-type]
    labels = {
        "target": torch.tensor([int(t.label) for t in world.attacked]),
        "surrogate": torch.tensor([t.surrogates[0].label for t in world.attacked]),
    }
    return {kind: pool.best(own, count) for kind, own in labels.items()}


def _images_of(prior: object) -> Callable[[Tensor], Tensor]:
    from attacks.attack import to_bounds

    return lambda w: to_bounds(prior.synthesize(w), prior.bounds, UNIT)  # type: ignore[attr-defined]


def _float32(checkpoint: Path) -> TorchClassifier:
    """Return the classifier without autocast: second derivatives want the digits."""
    from tasks.checkpoint import load_checkpoint
    from tasks.classifiers import TorchClassifier

    found = load_checkpoint(checkpoint)
    return TorchClassifier(found.module, found.meta.num_classes, found.meta.image_size)


def _measure(
    model: TorchClassifier,
    samples: dict[str, Tensor],
    latents: dict[str, Tensor],
    images_of: Callable[[Tensor], Tensor],
    world: World,
    probes: int,
) -> _Measured:
    """Measure one model; both models are given the same points, probes and directions."""
    from tasks.landscape import hessian_trace, latent_loss, loss_along, pixel_loss

    in_pixels, in_latents = pixel_loss(model), latent_loss(model, images_of)
    own = torch.tensor([int(target.label) for target in world.attacked])
    result = _Measured({}, {}, {}, {})
    for kind, images in samples.items():
        shape = images.shape[:2]
        flat, labels = images.flatten(0, 1), own.repeat_interleave(shape[1])
        draws = Draws(world.seed, ("landscape", kind))
        along = loss_along(in_pixels, flat, labels, RADII, draws)
        result.along[kind] = along.view(*shape, -1).double().numpy()
        result.loss[kind] = result.along[kind][:, :, 0]
        trace = hessian_trace(in_pixels, flat, labels, draws, probes)
        result.pixels[kind] = trace.view(shape).double().numpy()
        if kind in latents:
            w = latents[kind].flatten(0, 1)
            trace = hessian_trace(in_latents, w, labels, draws.child("w"), probes)
            result.latents[kind] = trace.view(shape).double().numpy()
    return result


def _compare(
    record: TrialRecord,
    control: _Measured,
    defended: _Measured,
    images: int,
    probes: int,
    seed: int,
) -> Landscape:
    differences = {
        "loss: target above surrogate": defended.loss["target"] - defended.loss["surrogate"],
        "trace: target above surrogate": defended.pixels["target"] - defended.pixels["surrogate"],
        "trace at target: trial above control": defended.pixels["target"]
        - control.pixels["target"],
        "trace at surrogate: trial above control": defended.pixels["surrogate"]
        - control.pixels["surrogate"],
        "trace along w: target above surrogate": defended.latents["target"]
        - defended.latents["surrogate"],
        "trace along w at target: trial above control": defended.latents["target"]
        - control.latents["target"],
    }
    found = {name: _estimate(values, seed) for name, values in differences.items()}
    before, after = _summary(control, seed), _summary(defended, seed)
    return Landscape(
        trial_id=record.trial_id,
        trial=record.index,
        targets=len(control.loss["target"]),
        images=images,
        probes=probes,
        control=before,
        defended=after,
        differences=found,
        verdict=verdict_of(before, after, found),
    )


def verdict_of(
    control: dict[str, Around], defended: dict[str, Around], differences: dict[str, Estimate]
) -> str:
    """Say in one sentence whether the levers did what the theory says, with the numbers.

    Pixels decide, since the levers act there; what it comes to along the latents is said beside it.
    """
    flatter = differences["trace: target above surrogate"]
    steeper = differences["trace at target: trial above control"]
    along = differences["trace along w: target above surrogate"]
    signs = [_sign(flatter), _sign(steeper), _sign(along)]
    if signs[:2] == [1, 1]:
        lead = "In pixels the levers did what the theory says"
    elif -1 in signs[:2]:
        lead = "In pixels the levers did not do all that the theory says"
    else:
        lead = "It is not settled whether in pixels the levers did what the theory says"
    words = {1: "", 0: " (not settled: the interval holds 0)", -1: " (the opposite of the theory)"}
    around, own = defended["surrogate"].pixel_trace.value, defended["target"].pixel_trace.value
    return (
        f"{lead}: with DCD the trace of the Hessian is {around:.3g} around the surrogate and "
        f"{own:.3g} around the target, a difference of {_short(flatter)}{words[signs[0]]}, and "
        f"around the target it was {control['target'].pixel_trace.value:.3g} without DCD, a rise "
        f"of {_short(steeper)}{words[signs[1]]}; along w the target's trace is "
        f"{_short(along)} above the surrogate's{words[signs[2]]}."
    )


def _sign(estimate: Estimate) -> int:
    """Return on which side of 0 the whole interval lies, 0 for both."""
    if estimate.low is None or estimate.high is None:
        return 0
    return 1 if estimate.low > 0 else -1 if estimate.high < 0 else 0


def _summary(found: _Measured, seed: int) -> dict[str, Around]:
    return {
        kind: Around(
            loss=_estimate(found.loss[kind], seed),
            pixel_trace=_estimate(found.pixels[kind], seed),
            latent_trace=_estimate(found.latents[kind], seed) if kind in found.latents else None,
            along=tuple(float(f"{v:.6g}") for v in found.along[kind].mean(axis=(0, 1))),
        )
        for kind in KINDS
    }


def _estimate(values: np.ndarray, seed: int) -> Estimate:
    from tasks.evaluation.intervals import cluster_mean

    return Estimate.of(cluster_mean(values, Draws(seed, ("landscape", "interval"))))


def _short(estimate: Estimate) -> str:
    low, high = ("?" if end is None else f"{end:.3g}" for end in (estimate.low, estimate.high))
    return f"{estimate.value:.3g} [{low}, {high}]"
