"""Priors on disk: one safetensors file, whose header says the kind, the shape and the origin."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from attacks.prior import DecoderPrior, DecoderSpec
from attacks.prior_gan import GanPrior, GanShape
from attacks.prior_stylegan2 import StyleGan2Prior, StyleGan2Shape
from tasks.errors import DataError

FORMAT = "dcdctl-prior/1"

AnyPrior = DecoderPrior | GanPrior | StyleGan2Prior


def make_prior(kind: str, shape: str) -> AnyPrior:
    """Return an untrained prior.

    Args:
        kind: decoder, gan or stylegan2.
        shape: its JSON.

    Raises:
        KeyError: no prior is of that kind.
        ValidationError: no such shape is possible.
    """
    if kind == "decoder":
        return DecoderPrior(DecoderSpec.model_validate_json(shape))
    if kind == "gan":
        return GanPrior(GanShape.model_validate_json(shape))
    if kind == "stylegan2":
        return StyleGan2Prior(StyleGan2Shape.model_validate_json(shape))
    raise KeyError(kind)


def kind_of(prior: AnyPrior) -> str:
    """Return the kind as the header has it."""
    if isinstance(prior, DecoderPrior):
        return "decoder"
    return "gan" if isinstance(prior, GanPrior) else "stylegan2"


def save_prior(prior: AnyPrior, path: Path, trained_on: dict[str, str]) -> None:
    """Write weights as safetensors, whole or not at all; kind, shape and origin in the header.

    A decoder's are float16, which its training does not notice; all others' are as they are.
    """
    kind = kind_of(prior)
    weights = {
        name: (v.half() if kind == "decoder" else v).contiguous()
        for name, v in prior.state_dict().items()
    }
    header = {
        "format": FORMAT,
        "kind": kind,
        "spec": prior.spec.model_dump_json(),
        "trained_on": json.dumps(trained_on, sort_keys=True),
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(save(weights, metadata=header))
    partial.replace(path)


def load_prior(path: Path) -> AnyPrior:
    """Read a prior of any kind, frozen, in float32.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise DataError(
                    f"{path} is not a prior of this program (format {header.get('format')!r}); "
                    "`dcdctl prior train` and `dcdctl prior convert` write one"
                )
            # Files from before there were kinds hold decoders.
            prior = make_prior(header.get("kind", "decoder"), header["spec"])
            weights = {name: file.get_tensor(name).float() for name in prior.state_dict()}
            prior.load_state_dict(weights)
    except (SafetensorError, ValidationError, KeyError, RuntimeError, OSError) as error:
        raise DataError(
            f"the prior {path} cannot be read ({type(error).__name__}); make it again with "
            "`dcdctl prior train` or `dcdctl prior convert`"
        ) from error
    return prior.eval().requires_grad_(False)
