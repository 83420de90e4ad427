"""`dcdctl plan`, `augment` and `protect`: what DCD does to data, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli_options import (
    Assignments,
    Config,
    Json,
    Out,
    Seed,
    Storage,
    console_for,
    load,
    show,
)
from orchestrator.cluster_options import Cluster, Detach, Down, Insecure, There
from orchestrator.jobs_cli import run_there


def protect(
    photos: Annotated[
        Path, typer.Argument(metavar="PHOTOS", help="A folder, a zip or a photo of one person.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A new folder for the files to hand over.")
    ],
    label: Annotated[str, typer.Option(help="The person's name in the upload.")] = "me",
    other_labels: Annotated[
        str,
        typer.Option(metavar="A,B", help="Other names that you may hand photos over under."),
    ] = "",
    surrogates: Annotated[
        Path | None,
        typer.Option(help="Photos of somebody who lends them; none takes a drawn face."),
    ] = None,
    like: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="What the person looks like; the drawn face is the opposite."
        ),
    ] = "",
    mislabel_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Of the photos, with --other-labels.")
    ] = 0.2,
    surrogate_sigma: Annotated[
        float, typer.Option(min=0, max=1, help="Noise around the surrogate's images.")
    ] = 0.003,
    max_side: Annotated[
        int, typer.Option(min=32, max=8192, help="Larger photos are shrunk to this side.")
    ] = 512,
    uploads_as: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="What happens to uploads: jpeg:75, resize:1024."),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Make one person's photos ready to hand over; no model and nobody else's data are needed.

    Example:
        dcdctl protect photos --out to-upload
        dcdctl protect photos.zip --out to-upload --like feminine,dark_hair --uploads-as jpeg:75
    """
    from augment.spec import DcdSpec
    from orchestrator.protect import protect_photos

    outcome = protect_photos(
        photos,
        out,
        label=label,
        other_labels=[name.strip() for name in other_labels.split(",") if name.strip()],
        surrogates=surrogates,
        like=[name.strip() for name in like.split(",") if name.strip()],
        dcd=DcdSpec(mislabel_fraction=mislabel_fraction, surrogate_sigma=surrogate_sigma),
        max_side=max_side,
        uploads_as=uploads_as,
        seed=seed,
    )
    show(outcome, as_json)


def plan(
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Check a data set that `dcdctl augment` wrote, and nothing else."
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure a few batches of every stage here first."),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where it would run: gives wall-clock and money there."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count what DCD would change, by role, and what it costs: hours, wall-clock, money.

    With --check: say whether a written data set is what its recipe says, sample by sample.

    Example:
        dcdctl plan
        dcdctl plan experiment.yaml --calibrate
        dcdctl plan experiment.yaml --cluster aws.yaml
        dcdctl plan experiment.yaml --set dcd.mislabel_fraction=0.4 --json
        dcdctl plan --check protected
    """
    if check is not None:
        named = (config, storage, seed, cluster)
        if assignments or calibrate or any(one is not None for one in named):
            raise typer.BadParameter(
                "--check takes its settings from the data set; name nothing else"
            )
        from orchestrator.verify import verify

        verified = verify(check)
        show(verified, as_json)
        verified.require_whole()
        return
    from orchestrator.planning import plan_summary

    spec, console = load(config, assignments, storage, seed), console_for(as_json)
    show(plan_summary(spec, cluster=cluster, calibrated=calibrate, console=console), as_json)


def augment(
    out: Out,
    config: Config = None,
    form: Annotated[
        Literal["parquet", "imagefolder", "webdataset"],
        typer.Option("--format", help="How it is written."),
    ] = "parquet",
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC",
            help="Of the images: png, webp-lossless, raw or jpeg:95, which loses noise. Parquet "
            "has raw pixels unless told otherwise, files have png.",
        ),
    ] = None,
    samples_per_shard: Annotated[
        int | None, typer.Option(min=1, help="Else about 128 MiB of pixels.")
    ] = None,
    recipes_only: Annotated[
        bool, typer.Option("--recipes-only", help="Write the plan alone, no image.")
    ] = False,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Write the protected training images as files.

    Example:
        dcdctl augment --out protected
        dcdctl augment experiment.yaml --out protected --format webdataset --codec png
        dcdctl augment experiment.yaml --out protected --recipes-only
        dcdctl augment experiment.yaml --out protected --cluster aws.yaml
    """
    there = There(cluster, detach, down, insecure)
    spec = load(config, assignments, storage, seed)
    if cluster is not None:
        from orchestrator.job_request import StepOptions

        step = StepOptions(
            form=form,
            codec=codec,
            samples_per_shard=samples_per_shard,
            recipes_only=recipes_only,
        )
        run_there(there, "augment", [spec], as_json, out=out, step=step)
        return
    from orchestrator.commands import augment as run

    outcome = run(
        spec,
        out,
        console_for(as_json),
        form,
        codec=codec,
        samples_per_shard=samples_per_shard,
        recipes_only=recipes_only,
    )
    show(outcome, as_json)
