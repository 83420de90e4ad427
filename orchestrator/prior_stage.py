"""The stage that gives the attacker's generator: shipped, from a file, or trained and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from orchestrator.images_stage import Progress, images_of
from orchestrator.provenance import note_people
from orchestrator.selection import Selection
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage
from tasks.datasets.spec import BuiltinData
from tasks.errors import MissingDataError
from tasks.spec import fingerprint
from tasks.types import Image8

if TYPE_CHECKING:
    from attacks.prior import Prior
    from attacks.prior_files import AnyPrior


def prepare_prior(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> tuple[Prior, str]:
    """Return the attacker's generator and its key: shipped, from a file, or trained and kept.

    Its images have the data's size; where the generator's own have another, they are resized.

    Raises:
        MissingDataError: the named file, or a shipped prior of this size, does not exist.
    """
    from attacks.prior_resize import fit_prior

    prior, key = _find_prior(spec, store, selection, progress)
    fitted = fit_prior(prior, spec.data.image_size, spec.prior.crop)
    return fitted, key if spec.prior.crop is None else fingerprint([key, spec.prior.crop])


def _find_prior(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> tuple[AnyPrior, str]:
    from attacks.prior_files import load_prior, save_prior

    source = spec.prior.source
    if isinstance(source, Path):
        if not source.is_file():
            raise MissingDataError(
                f"prior.source={str(source)!r} does not exist; name a .safetensors file that "
                "`dcdctl prior train` or `dcdctl prior convert` wrote, or use auto"
            )
        return load_prior(source), _file_key(source)
    shipped = _shipped(spec)
    if source == "shipped" and shipped is None:
        raise MissingDataError(
            f"no {spec.prior.kind} prior is shipped for {spec.data.kind} data of "
            f"{spec.data.image_size} pixels; use prior.source=train"
        )
    if shipped is not None and not trains_prior(spec):
        return load_prior(shipped), _file_key(shipped)

    rows, images, digest = images_of(spec, store, selection.split("public"), "public", progress)
    key = prior_key(spec, digest)
    folder = store.artifact("prior", key)

    def make(out: Path) -> dict[str, object]:
        prior = train_any_prior(
            spec, store, images, key, lambda step, steps, loss: progress("prior", step, steps)
        )
        note_people(out, store, rows)
        save_prior(prior, out / "prior.safetensors", prior_origin(spec, rows))
        return {"public_images": len(rows)}

    stage(folder, make)
    return load_prior(folder / "prior.safetensors"), key


def _shipped(spec: ExperimentSpec) -> Path | None:
    from attacks.prior_training import shipped_prior_path

    if isinstance(spec.data, BuiltinData) and spec.prior.kind == "decoder":
        return shipped_prior_path(spec.data.image_size)
    return None


def trains_prior(spec: ExperimentSpec) -> bool:
    """Say whether the attacker's generator is trained, and neither shipped nor in a file."""
    if isinstance(spec.prior.source, Path):
        return False
    source = spec.prior.source
    return source == "train" or (source != "shipped" and _shipped(spec) is None)


def train_any_prior(
    spec: ExperimentSpec,
    store: Store,
    images: Image8,
    key: str,
    on_step: Callable[[int, int, float], None],
) -> AnyPrior:
    """Train a prior of the kind that the experiment asks for; Ray must run.

    Args:
        spec: the experiment.
        store: a GAN's checkpoints are kept there while it is trained over several processes.
        images: the public images.
        key: of the prior.
        on_step: called with the step, the steps and the loss.
    """
    if spec.prior.kind == "gan":
        from orchestrator.distributed_prior import fit_gan

        unfinished = store.artifact("prior-unfinished", key)
        return fit_gan(images, spec.prior.gan, spec.seed, storage=unfinished, on_step=on_step)
    from attacks.prior_training import train_prior

    return train_prior(images, spec.prior, spec.seed, on_step=on_step)


def prior_key(spec: ExperimentSpec, digest: str) -> str:
    """Return the identity of a trained prior: its settings, its images, the seed."""
    return fingerprint([_prior_settings(spec), digest, spec.seed])


def _prior_settings(spec: ExperimentSpec) -> dict[str, object]:
    """Return the settings that decide what is trained; the number of processes is none of them."""
    if spec.prior.kind == "gan":
        return {"kind": "gan"} | spec.prior.gan.model_dump(mode="json", exclude={"workers"})
    return spec.prior.model_dump(mode="json", include={"steps", "kl_weight", "latent_size"})


def _file_key(path: Path) -> str:
    """Return the fingerprint of a file's bytes in hexadecimal, without holding them at once."""
    import hashlib

    digest = hashlib.sha256(b'"')
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk.hex().encode())
    digest.update(b'"')
    return digest.hexdigest()[:12]


def prior_origin(spec: ExperimentSpec, rows: pa.Table) -> dict[str, str]:
    """Return what a prior was trained on and how, for its header; no names."""
    origin = {
        "data": spec.data.kind,
        "identities": str(len(rows["identity"].unique())),
        "images": str(rows.num_rows),
        "settings": json.dumps(_prior_settings(spec)),
        "seed": str(spec.seed),
    }
    if isinstance(spec.data, BuiltinData):
        from tasks.datasets.builtin import PUBLIC_SEED
        from tasks.datasets.faces import FACE_VERSION

        origin |= {"public_seed": str(PUBLIC_SEED), "face_version": str(FACE_VERSION)}
    return origin
