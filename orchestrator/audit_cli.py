"""`dcdctl audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli_options import (
    Assignments,
    Config,
    Json,
    Seed,
    Storage,
    console_for,
    load,
    show,
)


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

    spec = load(config, assignments, storage, seed)
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
    outcome = run(spec, asked, console_for(as_json), spec.attacks if named else None)
    show(outcome, as_json)
    outcome.require_pass()
