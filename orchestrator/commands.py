"""What single commands do: augment, train, attack, audit. The CLI only prints."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field
from rich.console import Console
from rich.table import Table

from clusters.embedded import embedded_ray
from orchestrator.prior_stage import prepare_prior
from orchestrator.progress import Display
from orchestrator.records import Accuracy, AttackRecord
from orchestrator.screening import ScreenRecord, render_screening, screen
from orchestrator.selection import choose
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from orchestrator.world_stage import prepare_world, private_and_lent
from tasks.errors import DataError
from tasks.spec import Spec, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attacks.spec import AttackSpec
    from orchestrator.audit_records import AuditOutcome
    from orchestrator.audit_request import AuditRequest
    from orchestrator.shards import Format


class AugmentOutcome(Spec):
    """Where the protected data set, or its recipes alone, were written."""

    out: str
    rows: int
    shards: int
    counts: dict[str, int]
    inflation: float
    plan: str

    def render(self, console: Console) -> None:
        """Print it for people."""
        if not self.shards:
            console.print(
                f"{self.rows:,} recipes ({self.inflation:.2f} times the targets' own images) in "
                f"{self.out}/private, plan {self.plan}; no image was written",
                highlight=False,
            )
            return
        console.print(
            f"{self.rows:,} images ({self.inflation:.2f} times the targets' own) in "
            f"{self.shards} files under {self.out}/public\n"
            f"{self.out}/private says which rows are decoys: keep it to yourself\n"
            f"plan {self.plan}; check it with: dcdctl plan --check {self.out}",
            highlight=False,
        )


def augment(
    spec: ExperimentSpec,
    out: Path,
    console: Console,
    format_: Format = "parquet",
    *,
    codec: str | None = None,
    samples_per_shard: int | None = None,
    recipes_only: bool = False,
) -> AugmentOutcome:
    """Write the protected training set of the experiment's own recipe.

    Args:
        spec: the experiment.
        out: a new folder, or one that an earlier call left unfinished.
        console: for progress.
        format_: of the public part.
        codec: as `Codec.parse` reads it; None is the format's own.
        samples_per_shard: None takes about 128 MiB of pixels.
        recipes_only: write the plan and decode no image of it. (The policy typical-opposite looks
            at some pictures to choose the surrogates, if that was not done before.)
    """
    from augment.encode import Codec
    from augment.plan import count_roles, inflation, make_plan
    from orchestrator.forget import note_output
    from orchestrator.image_files import ImageFiles
    from orchestrator.materialise import materialise, write_recipes
    from orchestrator.plan_tally import plan_digest, rows_in_order
    from orchestrator.progress import Pace

    chosen = None if codec is None else Codec.parse(codec)
    display, pace = Display(console), Pace()
    store = Store(spec.storage)
    shards = 0
    with store.locked(), ExitStack() as stack:
        note_output(store, spec.data.kind, "augment", out)
        if not recipes_only:
            stack.enter_context(embedded_ray(spec.compute.cpus))
        stack.enter_context(display.live())
        selection = choose(spec, store, display.stage)
        if recipes_only:
            rows = rows_in_order(selection)
        else:
            found = private_and_lent(spec, store, selection, display.stage)
            rows = pa.concat_tables([table for table, _, _ in found]).combine_chunks()
        plan = make_plan(rows, selection.targets, selection.num_classes, spec.dcd, spec.seed)
        if recipes_only:
            write_recipes(plan, rows, out)
        else:
            shards = materialise(
                plan,
                rows,
                ImageFiles.of(
                    [images for _, images, _ in found], fingerprint([k for *_, k in found])
                ),
                out,
                format_=format_,
                codec=chosen,
                samples_per_shard=samples_per_shard,
                on_progress=lambda done, total: display.stage(
                    "images written", done, total, pace.note(done, total)
                ),
            ).shards
    return AugmentOutcome(
        out=str(out),
        rows=plan.num_rows,
        shards=shards,
        counts=count_roles(plan),
        inflation=round(inflation(plan, rows, selection.targets), 4),
        plan=plan_digest(plan),
    )


class TrainOutcome(Spec):
    """A trained classifier."""

    checkpoint: str
    defense: Literal["none", "dcd"]
    clean_accuracy: Accuracy
    rows: int
    seconds: float

    def render(self, console: Console) -> None:
        """Print it for people."""
        a = self.clean_accuracy
        console.print(
            f"{self.checkpoint}: defence {self.defense}, {self.rows:,} rows, {self.seconds:.0f} s\n"
            f"clean accuracy {a.overall}, targets {a.targets}, bystanders {a.bystanders}",
            highlight=False,
        )


def train(
    spec: ExperimentSpec, defense: Literal["none", "dcd"], out: Path, console: Console
) -> TrainOutcome:
    """Train the target classifier, undefended or with the experiment's own recipe."""
    import time

    from augment.plan import make_plan
    from orchestrator.distributed import fit_distributed
    from orchestrator.forget import note_output
    from orchestrator.placement import check_capacity
    from orchestrator.public_weights import with_public_weights
    from orchestrator.publisher import publishing
    from orchestrator.serving import fit_served
    from orchestrator.train_group import StateKeeper
    from orchestrator.trial import accuracy_of, fit_here
    from tasks.workers import several_workers

    display = Display(console)
    store = Store(spec.storage)
    with ExitStack() as stack:
        stack.enter_context(store.locked())
        stack.enter_context(embedded_ray(spec.compute.cpus))
        stack.enter_context(display.live())
        check_capacity(spec.training.workers)
        note_output(store, spec.data.kind, "train", out)
        selection = choose(spec, store, display.stage)
        world = prepare_world(spec, store, selection, display.stage)
        world = with_public_weights(spec, [spec.training], store, selection, world, display.stage)
        targets = world.targets if defense == "dcd" else ()
        plan = make_plan(world.rows, targets, world.num_classes, spec.dcd, spec.seed)
        started = time.monotonic()
        epochs = spec.training.passes
        several = several_workers(spec.training.workers)
        if several:
            publisher = stack.enter_context(publishing())
            keeper = StateKeeper(publisher, out.absolute() / "training")
            fit = functools.partial(fit_distributed, keeper=keeper, public=world.public)
        else:
            fit = functools.partial(
                fit_here,
                on_epoch=lambda epoch: display.stage("epochs", epoch, epochs),
                public=world.public,
            )
        _settle_threads(spec.data.image_size)
        checkpoint = fit_served(
            fit, world.images, plan, world.num_classes, spec.training, spec.seed, spec.serving
        )
        seconds = time.monotonic() - started
        checkpoint.save(out)
        if several:
            keeper.forget()
    return TrainOutcome(
        checkpoint=str(out),
        defense=defense,
        clean_accuracy=accuracy_of(checkpoint.classifier(), world),
        rows=plan.num_rows,
        seconds=round(seconds, 1),
    )


def _settle_threads(image_size: int) -> None:
    """Train and attack small nets on one thread.

    Two threads gain little at 32 pixels, and with other work on the machine they wait for each
    other: 50 rows a second instead of 490 were measured.
    """
    if image_size <= SMALL_PIXELS:
        import torch

        torch.set_num_threads(1)


SMALL_PIXELS = 64


class AttackOutcome(Spec):
    """What the attacks reached against one classifier."""

    checkpoint: str
    clean_accuracy: Accuracy
    attacks: tuple[AttackRecord, ...]
    screening: tuple[ScreenRecord, ...] = Field((), description="With --screen; no attacks then.")

    def render(self, console: Console) -> None:
        """Print it for people."""
        if self.screening:
            render_screening(self.screening, console)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("attack", "access", "accuracy@1", "accuracy@5", "surrogate", "queries"):
            table.add_column(heading)
        for a in self.attacks:
            table.add_row(
                a.name,
                a.access,
                str(a.accuracy_at_1),
                f"{a.accuracy_at_5.value:.3f}",
                f"{a.surrogate_rate.value:.3f}",
                f"{a.queries:,}",
            )
        console.print(table)


def attack(
    spec: ExperimentSpec, checkpoint: Path, console: Console, screened: bool = False
) -> AttackOutcome:
    """Attack a trained classifier with the experiment's attacks and judge the reconstructions.

    Args:
        spec: the experiment.
        checkpoint: folder of the classifier.
        console: for progress.
        screened: stop at clear verdicts on targets, for a part of the budget.

    Raises:
        DataError: the classifier does not fit the experiment's data.
    """
    from orchestrator.attacking import Reconstructed, attack_all
    from orchestrator.forgotten import require_whole
    from orchestrator.judges import judges_of, load_panel, train_judges
    from orchestrator.judging import judge_all
    from orchestrator.trial import accuracy_of
    from tasks.checkpoint import load_checkpoint

    require_whole(checkpoint.absolute())
    display = Display(console)
    store = Store(spec.storage)
    trained = load_checkpoint(checkpoint)
    with store.locked(), embedded_ray(spec.compute.cpus), display.live():
        selection = choose(spec, store, display.stage)
        wanted = (selection.num_classes, spec.data.image_size)
        found = (trained.meta.num_classes, trained.meta.image_size)
        if wanted != found:
            raise DataError(
                f"the classifier {checkpoint} has {found[0]} classes of {found[1]} pixels, "
                f"the data {wanted[0]} of {wanted[1]}; use the settings it was trained with"
            )
        world = prepare_world(spec, store, selection, display.stage)
        prior, _ = prepare_prior(spec, store, selection, display.stage)
        _settle_threads(spec.data.image_size)
        folders = train_judges(judges_of(spec, world, store), world, display.stage)
        panel = load_panel(spec, folders)
        classifier = trained.classifier()
        if screened:
            return AttackOutcome(
                checkpoint=str(checkpoint),
                clean_accuracy=accuracy_of(classifier, world),
                attacks=(),
                screening=tuple(
                    screen(
                        one,
                        classifier,
                        prior,
                        world,
                        panel.first,
                        spec.screening,
                        progress=partial(display.stage, one.label),
                    )
                    for one in spec.attacks
                ),
            )
        results: dict[str, Reconstructed] = {}
        for done, one in enumerate(spec.attacks):
            display.stage("attacks", done, len(spec.attacks), one.label)
            results |= attack_all(classifier, prior, world, (one,))
        display.stage("attacks", len(spec.attacks), len(spec.attacks))
        records, _ = judge_all(results, panel, world, spec.attacks)
    return AttackOutcome(
        checkpoint=str(checkpoint),
        clean_accuracy=accuracy_of(classifier, world),
        attacks=records,
    )


def audit(
    spec: ExperimentSpec,
    asked: AuditRequest,
    console: Console,
    listed: Sequence[AttackSpec] | None = None,
) -> AuditOutcome:
    """Attack a classifier that somebody else trained; say of each identity how exposed it is.

    Args:
        spec: prior, judge, seed and storage.
        asked: the model, and whom to attack.
        console: for progress.
        listed: attacks of the experiment file; None takes all that the access allows.
    """
    from orchestrator.audit import run_audit
    from orchestrator.prior_stage import trains_prior

    display = Display(console)
    store = Store(spec.storage)
    with store.locked(), ExitStack() as stack:
        if asked.images is not None or trains_prior(spec):
            stack.enter_context(embedded_ray(spec.compute.cpus))
        stack.enter_context(display.live())
        _settle_threads(asked.pixels(spec.data.image_size))
        return run_audit(spec, asked, listed, store, display.stage, display.line)
