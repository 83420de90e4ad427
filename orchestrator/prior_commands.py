"""What `dcdctl prior train` and `convert` do. The CLI only prints."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from rich.console import Console

from clusters.embedded import embedded_ray
from orchestrator.prior_stage import prior_origin
from orchestrator.progress import Display
from orchestrator.selection import select
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from tasks.spec import Spec


class PriorOutcome(Spec):
    """A trained generator."""

    path: str
    kind: str = "decoder"
    public_images: int
    seconds: float

    def render(self, console: Console) -> None:
        """Print it for people."""
        console.print(
            f"{self.path}: {self.kind} trained on {self.public_images:,} public images in "
            f"{self.seconds:.0f} s; use it with --set prior.source={self.path}",
            highlight=False,
        )


def train_prior(spec: ExperimentSpec, out: Path, console: Console) -> PriorOutcome:
    """Train the attacker's generator on the public data and write it to a file."""
    import time

    from attacks.prior_files import save_prior
    from orchestrator.forget import note_output
    from orchestrator.images_stage import images_of
    from orchestrator.prior_stage import prior_key, train_any_prior

    display = Display(console)
    store = Store(spec.storage)
    with store.locked(), embedded_ray(spec.compute.cpus), display.live():
        note_output(store, spec.data.kind, "prior train", out)
        selection = select(spec)
        rows, images, digest = images_of(
            spec, store, selection.split("public"), "public", display.stage
        )
        started = time.monotonic()
        prior = train_any_prior(
            spec,
            store,
            images,
            prior_key(spec, digest),
            on_step=lambda step, steps, loss: display.stage(
                "prior", step, steps, f"{step} of {steps}, loss {loss:.4f}"
            ),
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        save_prior(prior, out, prior_origin(spec, rows))
    return PriorOutcome(
        path=str(out),
        kind=spec.prior.kind,
        public_images=rows.num_rows,
        seconds=round(time.monotonic() - started, 1),
    )


class ConvertOutcome(Spec):
    """A generator out of somebody else's file."""

    path: str
    layout: str = Field(description="The program whose file it was.")
    image_size: int
    latent_size: int = Field(description="Of w.")
    parameters: int

    def render(self, console: Console) -> None:
        """Print it for people."""
        console.print(
            f"{self.path}: StyleGAN2 of {self.image_size} pixels, w of {self.latent_size}, "
            f"{self.parameters:,} parameters, from a file of {self.layout}\n"
            f"use it with --set prior.source={self.path}; its licence is its author's",
            highlight=False,
        )


def convert_prior(source: Path, out: Path) -> ConvertOutcome:
    """Turn a StyleGAN2 weight file into a prior; nothing in it is run.

    Raises:
        UnsafePickleError: unpickling it could run code.
        DataError: it is damaged, or no StyleGAN2 that can be a prior here.
    """
    import hashlib

    from attacks.prior_convert import convert
    from attacks.prior_files import save_prior

    found = convert(source)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    out.parent.mkdir(parents=True, exist_ok=True)
    save_prior(found.prior, out, {"converted_from": found.layout, "sha256": digest})
    return ConvertOutcome(
        path=str(out),
        layout=found.layout,
        image_size=found.prior.image_size,
        latent_size=found.prior.w_size,
        parameters=sum(p.numel() for p in found.prior.parameters()),
    )
