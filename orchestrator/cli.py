"""The command line: load the experiment, call one function, print what it returns.

Nothing but typer is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import typer

from orchestrator.cluster_cli import Cluster, Detach, Down, Insecure, refuse_alone, run_there
from orchestrator.cluster_cli import register as register_cluster
from orchestrator.completion import run_folders
from orchestrator.failure import Command
from orchestrator.report_command import report
from orchestrator.trainers_cli import trainers
from orchestrator.views_cli import register as register_views

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.spec import ExperimentSpec

app = typer.Typer(
    name="dcdctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prior_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    prior_app, name="prior", help="Make the attacker's generator.", rich_help_panel="One step"
)

Config = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG", help="Experiment file or run folder; none is the built-in experiment."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
Storage = Annotated[
    str | None, typer.Option(metavar="URI", help="Where results are kept: overrides `storage`.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Overrides `seed`.")]
MaxHours = Annotated[
    float | None,
    typer.Option(metavar="HOURS", help="Stop before this many core-hours are spent."),
]
MaxCost = Annotated[
    float | None, typer.Option(metavar="MONEY", help="Stop before this is spent; needs a price.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, progress on stderr.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result is written.")]


class Outcome(Protocol):
    """What a step returns: a model that can draw itself."""

    def model_dump_json(self, *, indent: int) -> str: ...  # noqa: D102

    def render(self, console: Console) -> None: ...  # noqa: D102


def main() -> None:
    """Run `dcdctl`."""
    app(prog_name="dcdctl")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dcdctl {version('dcdctl')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Protect identities against model inversion by changing the data, and measure it.

    `dcdctl sweep` runs the built-in experiment and writes a report.
    """


@app.command(cls=Command, rich_help_panel="The main job")
def sweep(
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Run all of it tiny, as a test.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped sweep.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run failed trials again too.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set an earlier sweep aside, and start over.")
    ] = False,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Search for the setting that protects best, and write the report.

    Example:
        dcdctl sweep
        dcdctl sweep --cluster aws.yaml
        dcdctl sweep experiment.yaml --set sweep.trials=12
        dcdctl sweep --resume
        dcdctl sweep experiment.yaml --max-hours 10
    """
    if resume and fresh:
        raise typer.BadParameter("--resume keeps the earlier trials and --fresh sets them aside")
    if retry_failed and not resume:
        raise typer.BadParameter("--retry-failed goes with --resume")
    refuse_alone(cluster, detach=detach, down=down, insecure_cluster=insecure)
    from orchestrator.sweep import run_sweep

    spec = _load(config, _limited(assignments, max_hours, max_cost), storage, seed)
    if smoke:
        from orchestrator.smoke import smoke as tiny

        spec = tiny(spec)
    mode: Literal["new", "resume", "fresh"] = "resume" if resume else "fresh" if fresh else "new"
    console = _console(as_json)
    if cluster is not None:
        reports = run_there(
            cluster,
            "sweep",
            [spec],
            mode,
            console,
            detach=detach,
            take_down=down,
            insecure=insecure,
            retry_failed=retry_failed,
        )
        for report_file in reports:
            typer.echo(f"Report: {report_file}")
        return
    outcome = run_sweep(spec, mode=mode, console=console, retry_failed=retry_failed)
    if as_json:
        typer.echo(outcome.model_dump_json(indent=2))
    else:
        found = [text for text in (outcome.verdict, outcome.adaptive) if text]
        typer.echo("\n".join(["", *found, "", f"Report: {outcome.report}", "Next:"]))
        typer.echo("\n".join(f"  {command}" for command in outcome.next_commands))


@app.command(cls=Command, rich_help_panel="The main job")
def compare(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATHS",
            help="Experiment files to run, or folders of finished runs to read; none is the "
            "built-in experiment.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Run each experiment with these seeds.")
    ] = None,
    assignments: Assignments = None,
    storage: Storage = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Run all of it tiny, as a test.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped comparison.")
    ] = False,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Train and attack every defence alike, and write the paper's Table 1.

    Folders of finished runs are compared as they are; nothing is run again.

    Example:
        dcdctl compare --seeds 0,1,2
        dcdctl compare a.yaml b.yaml
        dcdctl compare .dcdctl/runs/3c4a659d6c0e .dcdctl/runs/71b22ce0a4d9
    """
    refuse_alone(cluster, detach=detach, down=down, insecure_cluster=insecure)
    from orchestrator.compare import compare_runs, run_comparison

    named = paths or []
    runs = [path for path in named if (path / "trials").is_dir()]
    if runs and len(runs) == len(named):
        if seeds or assignments or smoke or resume or max_hours or max_cost:
            raise typer.BadParameter("finished runs are only read; name nothing but --storage")
        _show(compare_runs(runs, Path(storage or ".dcdctl") / "comparisons"), as_json)
        return
    if runs:
        raise typer.BadParameter("name experiment files or folders of runs, not both")
    try:
        numbers = [int(word) for word in seeds.split(",")] if seeds else None
    except ValueError:
        raise typer.BadParameter(f"--seeds {seeds!r} is no list of numbers; write 0,1,2") from None
    chosen: list[Path | None] = [*named] or [None]
    changes = _limited(assignments, max_hours, max_cost)
    specs = [_load(path, changes, storage, None) for path in chosen]
    if smoke:
        from orchestrator.smoke import smoke as tiny

        specs = [tiny(spec) for spec in specs]
    mode: Literal["new", "resume"] = "resume" if resume else "new"
    if cluster is not None:
        alone = [
            spec.model_copy(update={"seed": number})
            for spec in specs
            for number in numbers or [spec.seed]
        ]
        console = _console(as_json)
        reports = run_there(
            cluster,
            "compare",
            alone,
            mode,
            console,
            detach=detach,
            take_down=down,
            insecure=insecure,
        )
        if reports:
            folders = [report_file.parent for report_file in reports]
            _show(compare_runs(folders, folders[0].parents[1] / "comparisons"), as_json)
        return
    _show(run_comparison(specs, numbers, _console(as_json), mode=mode), as_json)


app.command(cls=Command, rich_help_panel="The main job")(report)


@app.command(cls=Command, rich_help_panel="One step")
def landscape(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, as sweep names it.",
            autocompletion=run_folders,
        ),
    ],
    trial: Annotated[
        int | None,
        typer.Option(min=1, help="Which trial; else the recommended one, or the nearest."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Of each target and kind.")] = 8,
    probes: Annotated[int, typer.Option(min=1, help="Of the trace, for each image.")] = 8,
    as_json: Json = False,
) -> None:
    """Measure loss and curvature around targets and surrogates: did the levers work as meant?

    Example:
        dcdctl landscape .dcdctl/runs/3c4a659d6c0e
    """
    from orchestrator.landscape import landscape as measure

    _show(measure(run, _console(as_json), trial=trial, images=images, probes=probes), as_json)


app.command(cls=Command, rich_help_panel="One step")(trainers)


@app.command(cls=Command, rich_help_panel="The main job")
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
    _show(outcome, as_json)


@app.command(cls=Command, rich_help_panel="One step")
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
        _show(verified, as_json)
        verified.require_whole()
        return
    from orchestrator.planning import plan_summary

    spec = _load(config, assignments, storage, seed)
    console = _console(as_json)
    found = plan_summary(spec, cluster=cluster, calibrated=calibrate, console=console)
    _show(found, as_json)


@app.command(cls=Command, rich_help_panel="One step")
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
    as_json: Json = False,
) -> None:
    """Write the protected training images as files.

    Example:
        dcdctl augment --out protected
        dcdctl augment experiment.yaml --out protected --format webdataset --codec png
        dcdctl augment experiment.yaml --out protected --recipes-only
    """
    from orchestrator.commands import augment as run

    spec = _load(config, assignments, storage, seed)
    outcome = run(
        spec,
        out,
        _console(as_json),
        form,
        codec=codec,
        samples_per_shard=samples_per_shard,
        recipes_only=recipes_only,
    )
    _show(outcome, as_json)


@app.command(cls=Command, rich_help_panel="One step")
def train(
    out: Out,
    config: Config = None,
    defense: Annotated[
        Literal["none", "dcd"], typer.Option(help="none trains the control.")
    ] = "dcd",
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Train the target classifier on the protected images, or on the plain ones.

    Example:
        dcdctl train experiment.yaml --defense none --out control
    """
    from orchestrator.commands import train as run

    spec = _load(config, assignments, storage, seed)
    _show(run(spec, defense, out, _console(as_json)), as_json)


@app.command(cls=Command, rich_help_panel="One step")
def attack(
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", "-c", help="What `dcdctl train` wrote.")
    ],
    config: Config = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Stop at clear verdicts, for a part of the budget.")
    ] = False,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Attack a trained classifier and judge the reconstructions.

    Example:
        dcdctl attack experiment.yaml --checkpoint control
        dcdctl attack experiment.yaml --checkpoint control --screen
    """
    from orchestrator.commands import attack as run

    spec = _load(config, assignments, storage, seed)
    _show(run(spec, checkpoint, _console(as_json), screen), as_json)


@app.command(cls=Command, rich_help_panel="The main job")
def audit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .safetensors state, a checkpoint folder, a factory (file.py:function), or an "
            "http(s) address that answers with scores.",
        ),
    ],
    config: Config = None,
    architecture: Annotated[
        str | None, typer.Option(help="Of a state: a torchvision name, or small-resnet.")
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(help="imagenet, half or none; torchvision's names have imagenet by default."),
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Instead of a name.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Goes with --mean.")] = None,
    bounds: Annotated[
        str, typer.Option(metavar="LOW,HIGH", help="Range of its pixels before that.")
    ] = "0,1",
    image_size: Annotated[
        int | None, typer.Option(min=8, max=2048, help="Pixels of a side that it is shown.")
    ] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the factory, which may do all you may.")
    ] = False,
    classes: Annotated[
        str | None, typer.Option(metavar="0,3,ann", help="Whom to attack; else all.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the classes, line i of class i.")
    ] = None,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", help="May be repeated; else all that can run.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Real images, a folder a person: trains the judge."),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="Who judges, with the same classes.")
    ] = None,
    max_attack_accuracy: Annotated[
        float, typer.Option(min=0, max=1, help="What is accepted of each identity.")
    ] = 0.10,
    seeds: Annotated[int, typer.Option(min=1, help="Times that each attack is run.")] = 5,
    query_budget: Annotated[
        int | None, typer.Option(min=1, help="Of an endpoint: images that it is shown, at most.")
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(min=0.01, help="Of an endpoint: images a second.")
    ] = None,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Seconds for one answer, with all tries.")
    ] = 60.0,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with its token.")
    ] = None,
    http_fields: Annotated[
        str, typer.Option(metavar="A,B", help="Of images in the request, scores in the answer.")
    ] = "images,scores",
    logits: Annotated[
        bool, typer.Option("--logits", help="The endpoint answers with logits.")
    ] = False,
    keep_reconstructions: Annotated[
        bool, typer.Option("--keep-reconstructions", help="Write the pictures that were found.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the result; else in the storage.")
    ] = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Attack a classifier that somebody else trained: who in it is exposed?

    Exit code 0: nobody is shown to be. 10: somebody is. 11: undecided. 12: the query budget ended.

    Example:
        dcdctl audit model.safetensors --architecture resnet18 --images people --classes 0,3
        dcdctl audit https://faces.example/score --images people --query-budget 50000
    """
    from orchestrator.audit_request import AuditRequest
    from orchestrator.commands import audit as run

    spec = _load(config, assignments, storage, seed)
    asked = AuditRequest(
        model=model,
        architecture=architecture,
        normalisation=normalisation,
        mean=mean,
        std=std,
        bounds=bounds,
        image_size=image_size,
        trust_code=trust_code,
        classes=classes,
        labels=labels,
        attacks=tuple(attacks or ()),
        images=images,
        judge=judge,
        max_attack_accuracy=max_attack_accuracy,
        seeds=seeds,
        query_budget=query_budget,
        rate_limit=rate_limit,
        deadline_s=deadline,
        token_env=token_env,
        http_fields=http_fields,
        logits=logits,
        keep_reconstructions=keep_reconstructions,
        out=out,
    )
    named = config is not None or any(one.startswith("attacks") for one in assignments or ())
    outcome = run(spec, asked, _console(as_json), spec.attacks if named else None)
    _show(outcome, as_json)
    outcome.require_pass()


register_views(app)
register_cluster(app)


@prior_app.command("train", cls=Command)
def prior_train(
    out: Out,
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Train the attacker's generator on the public images, and keep it in a file.

    Example:
        dcdctl prior train experiment.yaml --out prior.safetensors
        dcdctl prior train --set prior.kind=gan --set prior.gan.workers=2 --out gan.safetensors
    """
    from orchestrator.commands import train_prior

    spec = _load(config, assignments, storage, seed)
    _show(train_prior(spec, out, _console(as_json)), as_json)


@prior_app.command("convert", cls=Command)
def prior_convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="A .pkl of stylegan2-ada-pytorch, or a .pt of stylegan2-pytorch."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file to write.")],
    as_json: Json = False,
) -> None:
    """Turn somebody's StyleGAN2 weights into a prior; code in the file is refused, never run.

    Example:
        dcdctl prior convert ffhq.pkl ffhq.safetensors
    """
    from orchestrator.commands import convert_prior

    _show(convert_prior(source, out), as_json)


@app.command(cls=Command, rich_help_panel="Set up")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH")] = Path("experiment.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented experiment file to start from.

    Example:
        dcdctl init experiment.yaml
    """
    from orchestrator.config_template import write_template

    write_template(path, force=force)
    typer.echo(f"{path} is written; read it, change it, then: dcdctl sweep {path}")


@app.command(cls=Command, rich_help_panel="Set up")
def validate(
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all settings as JSON.")] = False,
) -> None:
    """Check an experiment and say what it means.

    Example:
        dcdctl validate experiment.yaml
        dcdctl validate experiment.yaml --set seed=1 --json
    """
    from orchestrator.config import outline

    spec = _load(config, assignments, storage, seed)
    lines = outline(spec)
    if as_json:
        typer.echo(spec.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(f"{heading:<11} {phrase}" for heading, phrase in lines.items()))


@app.command(cls=Command, rich_help_panel="Set up")
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="A table to read instead of the JSON Schema.")
    ] = False,
) -> None:
    """Print what an experiment file may hold, as a JSON Schema for editors.

    Example:
        dcdctl schema > experiment.schema.json
    """
    import json

    from orchestrator.config_template import settings_table
    from orchestrator.settings import json_schema

    typer.echo(settings_table() if markdown else json.dumps(json_schema(), indent=2))


@app.command(cls=Command, rich_help_panel="Set up")
def doctor(
    storage: Storage = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not start Ray.")] = False,
    as_json: Json = False,
) -> None:
    """Check that this machine can run an experiment; exit code 1 where it cannot.

    Example:
        dcdctl doctor
        dcdctl doctor --quick --json
    """
    from orchestrator.doctor import examine

    with _console(as_json).status("looking at this machine"):
        diagnosis = examine(_load(None, None, storage, None), quick=quick)
    _show(diagnosis, as_json)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _load(
    config: Path | None, assignments: list[str] | None, storage: str | None, seed: int | None
) -> ExperimentSpec:
    from json import dumps

    from orchestrator.config import load_spec

    changes = list(assignments or ())
    changes += [f"storage={dumps(storage)}"] if storage is not None else []
    changes += [f"seed={seed}"] if seed is not None else []
    return load_spec(config, changes)


def _limited(
    assignments: list[str] | None, max_hours: float | None, max_cost: float | None
) -> list[str]:
    limits = {"max_hours": max_hours, "max_cost": max_cost}
    named = [f"compute.{name}={limit}" for name, limit in limits.items() if limit is not None]
    return [*(assignments or ()), *named]


def _console(as_json: bool) -> Console:
    from rich.console import Console

    return Console(stderr=as_json)


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        typer.echo(outcome.model_dump_json(indent=2))
    else:
        outcome.render(_console(as_json))
