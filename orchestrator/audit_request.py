"""What an audit is asked for: which model, whom of it, by which attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from tasks.checkpoint import load_checkpoint
from tasks.classifiers import SMALL_NETS
from tasks.errors import MissingDataError, SpecError, TargetClassError
from tasks.foreign_classifier import (
    NORMALISATIONS,
    Access,
    Foreign,
    ForeignClassifier,
    Inputs,
    load_factory,
    load_state,
)
from tasks.http_classifier import Endpoint, HttpClassifier
from tasks.suggestions import did_you_mean
from tasks.types import Bounds

TORCHVISION_SIZE = 224

Kind = Literal["state", "checkpoint", "factory", "endpoint"]


@dataclass(frozen=True)
class AuditRequest:
    """What the command line asks for, beside the experiment's settings."""

    model: str
    architecture: str | None = None
    normalisation: str | None = None
    mean: str | None = None
    std: str | None = None
    bounds: str = "0,1"
    image_size: int | None = None
    trust_code: bool = False
    classes: str | None = None
    labels: Path | None = None
    attacks: tuple[str, ...] = ()
    images: Path | None = None
    judge: Path | None = None
    max_attack_accuracy: float = 0.10
    seeds: int = 5
    query_budget: int | None = None
    rate_limit: float | None = None
    deadline_s: float = 60.0
    token_env: str | None = None
    http_fields: str = "images,scores"
    logits: bool = False
    keep_reconstructions: bool = False
    out: Path | None = None

    @property
    def kind(self) -> Kind:
        """What MODEL names."""
        if urlsplit(self.model).scheme in ("http", "https"):
            return "endpoint"
        if Path(self.model).is_dir():
            return "checkpoint"
        if ":" in self.model and not self.model.endswith(".safetensors"):
            return "factory"
        return "state"

    @property
    def small(self) -> bool:
        """The state is of one of this program's own small nets."""
        return self.architecture is not None and self.architecture in SMALL_NETS

    def pixels(self, prior_size: int) -> int:
        """Return the size that the model is shown: torchvision's nets 224 unless told otherwise."""
        known = self.kind == "state" and not self.small
        return self.image_size or (TORCHVISION_SIZE if known else prior_size)

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            SpecError: names the first.
        """
        endpoint = self.kind == "endpoint"
        for name in ("query_budget", "rate_limit", "token_env"):
            if getattr(self, name) is not None and not endpoint:
                option = "--" + name.replace("_", "-")
                raise SpecError(f"{option} is for an endpoint, and {self.model} is a {self.kind}")
        if self.kind == "state" and self.architecture is None:
            raise SpecError(
                f"{self.model} holds weights and not their network; name it with --architecture, "
                "such as resnet18 or small-resnet"
            )
        if (self.mean is None) != (self.std is None):
            raise SpecError("--mean and --std go together; give both, or --normalisation")


def open_risk(asked: AuditRequest) -> str | None:
    """Return what is risky about asking the model; said before anything is sent."""
    return _endpoint(asked, 1).warning if asked.kind == "endpoint" else None


def open_model(asked: AuditRequest, prior_size: int) -> Foreign:
    """Return the classifier; an endpoint is asked for the first time.

    Args:
        asked: where it is, and what it wants to be shown.
        prior_size: size of an endpoint's or factory's pictures, unless another is asked for.

    Raises:
        DcdctlError: it cannot be opened; one sentence says why.
    """
    size = asked.pixels(prior_size)
    if asked.kind == "endpoint":
        return Foreign(HttpClassifier(_endpoint(asked, size)), "scores", False, "endpoint", {})
    if asked.kind == "checkpoint":
        trained = load_checkpoint(Path(asked.model))
        inputs = Inputs(trained.meta.image_size, *NORMALISATIONS["half"])
        classifier = ForeignClassifier(trained.module, trained.meta.num_classes, inputs)
        weights = dict(trained.module.named_parameters())
        return Foreign(classifier, "white-box", True, trained.meta.training.architecture, weights)
    if asked.kind == "factory":
        return load_factory(asked.model, _inputs(asked, "none", size), trusted=asked.trust_code)
    assert asked.architecture is not None
    usual = "half" if asked.small else "imagenet"
    return load_state(Path(asked.model), asked.architecture, _inputs(asked, usual, size))


def _endpoint(asked: AuditRequest, size: int) -> Endpoint:
    request, _, answer = asked.http_fields.partition(",")
    if not request or not answer:
        raise SpecError(f"--http-fields {asked.http_fields!r}: write two, as images,scores")
    return Endpoint(
        url=asked.model,
        image_size=size,
        token_env=asked.token_env,
        fields=(request.strip(), answer.strip()),
        logits=asked.logits,
        budget=asked.query_budget,
        rate=asked.rate_limit,
        deadline_s=asked.deadline_s,
    )


def _inputs(asked: AuditRequest, normalisation: str, size: int) -> Inputs:
    name = asked.normalisation or normalisation
    if name not in NORMALISATIONS:
        raise SpecError(f"--normalisation {name!r} is unknown{did_you_mean(name, NORMALISATIONS)}")
    mean, std = NORMALISATIONS[name]
    if asked.mean is not None and asked.std is not None:
        mean, std = (_numbers("--mean", asked.mean, 3), _numbers("--std", asked.std, 3))  # type: ignore[assignment]
    low, high = _numbers("--bounds", asked.bounds, 2)
    if min(std) <= 0 or low >= high:
        raise SpecError("--std must be above 0, and --bounds a low and a higher number")
    return Inputs(size, mean, std, Bounds(low, high))


def _numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise SpecError(f"{option} {text!r}: write {count} numbers with commas between")
    return found


def class_names(file: Path | None, num_classes: int) -> list[str] | None:
    """Return the classes' names, line i of the file for class i; None without a file.

    Raises:
        MissingDataError: the file does not exist.
        SpecError: it has another number of names than the model has classes, or one twice.
    """
    if file is None:
        return None
    try:
        names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingDataError(
            f"--labels {file} cannot be read; name a text file with one class a line"
        ) from error
    if len(names) != num_classes:
        raise SpecError(
            f"--labels {file} has {len(names)} names and the model {num_classes} classes; line i "
            "must be the name of class i"
        )
    if len(set(names)) < len(names):
        raise SpecError(f"--labels {file} has a name twice; each class needs its own")
    return names


def choose_classes(
    text: str | None, num_classes: int, names: Sequence[str] | None, pictured: Sequence[int]
) -> tuple[int, ...]:
    """Return whom to attack, by number or by name; all, or all with pictures, if nobody is named.

    Raises:
        SpecError: a name is unknown.
        TargetClassError: a number is no class of the model, or comes twice.
    """
    if text is None:
        inside = [label for label in pictured if label < num_classes]
        return tuple(sorted(inside)) or tuple(range(num_classes))
    found: list[int] = []
    for word in (part.strip() for part in text.split(",")):
        if names is not None and word in names:
            label = names.index(word)
        elif word.isdecimal() and word.isascii():
            label = int(word)
        else:
            hint = did_you_mean(word, names) if names else "; name classes through --labels FILE"
            raise SpecError(f"--classes: {word!r} is no class{hint}")
        if label >= num_classes:
            raise TargetClassError(
                f"--classes: {label} is out of range; the model has {num_classes} classes, 0 to "
                f"{num_classes - 1}"
            )
        if label in found:
            raise TargetClassError(f"--classes names class {label} twice; name it once")
        found.append(label)
    return tuple(found)


def choose_attacks(
    asked: Sequence[str],
    listed: Sequence[AttackSpec] | None,
    access: Access,
    *,
    features: bool,
) -> tuple[AttackSpec, ...]:
    """Return the attacks to run: those asked for, else the experiment file's, else all.

    Args:
        asked: names; what the experiment file says of them counts.
        listed: of the experiment file, None without one.
        access: what the model grants; attacks that need more are left out, unless asked for.
        features: it also gives its penultimate features.

    Raises:
        SpecError: no attack has that name, it needs more than the model grants, or none is left.
    """
    known = {spec.label: spec for spec in listed or ()}
    every = {name: _default_attack(name) for name in ATTACKS}
    granted = [spec for spec in known.values() if _may(spec, access, features)]
    if not asked and listed is None:
        granted = [spec for spec in every.values() if _may(spec, access, features)]
    if not asked:
        if not granted:
            raise SpecError(
                f"none of the attacks {', '.join(known)} can do with {access} access; use mirror-b"
            )
        return tuple(granted)
    chosen = []
    for name in dict.fromkeys(asked):
        spec = known.get(name) or every.get(name)
        if spec is None:
            raise SpecError(f"--attack {name!r} is unknown{did_you_mean(name, [*known, *every])}")
        if not _may(spec, access, features):
            raise SpecError(
                f"--attack {name} needs gradients or features, and the model grants {access} "
                "access; use mirror-b"
            )
        chosen.append(spec)
    return tuple(chosen)


def _default_attack(name: str) -> AttackSpec:
    spec: AttackSpec = TypeAdapter(AttackSpec).validate_python({"name": name})
    return spec


def _may(spec: AttackSpec, access: Access, features: bool) -> bool:
    white = ATTACKS[spec.name].access == "white-box"
    inside = spec.name == "adaptive" or getattr(spec, "feature_weight", 0) > 0
    return (access == "white-box" or not white) and (features or not inside)
