"""`dcdctl protect`: one person's photos, made ready to hand over.

Nobody else's data, no model, no torch and no Ray are needed. The plan is the same `make_plan` that
a fleet uses, for a data set of one person.

<out>/upload/<label>/<id>.png   what to hand over, one folder a label
<out>/upload/labels.csv         the same as a list: file, label
<out>/receipt.json              private: what each file is and came from, hashes, seed; how to undo
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console

from augment.dcd import noisy_image
from augment.plan import count_roles, make_plan
from augment.spec import DcdSpec
from augment.surrogate import assign_surrogates
from augment.uploads import ENOUGH, UploadPath, surviving_share, surviving_sigma
from orchestrator.store import disk_errors, write_atomic
from tasks.datasets.decode import UnreadableImage, decode_upright
from tasks.datasets.face_traits import ATTRIBUTES
from tasks.datasets.faces import face_attributes, render_faces
from tasks.datasets.photos import read_photos
from tasks.errors import MissingDataError, SpecError, StoreError, TargetClassError
from tasks.spec import Spec
from tasks.suggestions import did_you_mean
from tasks.types import ROW_SCHEMA, ClassId, IdentityId, Image8, Lender, TargetClass

DRAWN_PEOPLE = 100
"""Built-in people to choose a surrogate from."""

DRAWN_SIZE = 256
ME = "the person"
_PNG_EFFORT = 1  # zlib level: what photos lose by it is 10 % of size
_PROBES = 3  # photos on which the upload path is tried

NOT_PROTECTED = (
    "It works against one thing: pictures reconstructed out of a model that is trained on the "
    "upload, by someone who does not know of it.",
    "It does not hide these photos from anyone who sees them, does not stop recognition or "
    "matching, and makes the model take the lender's pictures for yours.",
    "Photos that were handed over before, or that others hand over, are not covered.",
)


class ProtectOutcome(Spec):
    """What was written for one person."""

    upload: str
    receipt: str
    label: str
    photos: int
    files: int
    roles: dict[str, int]
    surrogate: str
    set_aside: dict[str, int]
    noise_left: float | None
    sigma: float
    sigma_that_survives: float | None
    mislabels: bool

    def render(self, console: Console) -> None:
        """Print it for people: what to do, and what this protects against."""
        roles = ", ".join(f"{n} {role.replace('_', ' ')}" for role, n in self.roles.items() if n)
        lines = [
            f"{self.files} files of {self.photos} photos are ready in {self.upload}",
            f"  {roles}",
            f"  surrogate: {self.surrogate}",
        ]
        lines += [f"  set aside: {n} ({reason})" for reason, n in self.set_aside.items()]
        lines += ["", f"Hand over all of {self.upload}, each folder under its own name."]
        lines += [f"Keep {self.receipt} to yourself: it says what is what, and how to undo it."]
        if self.noise_left is not None and self.noise_left < ENOUGH:
            remedy = (
                f"--surrogate-sigma {self.sigma_that_survives:g} would"
                if self.sigma_that_survives is not None
                else "no sigma that was tried would; hand the files over without recompression"
            )
            lines += [
                "",
                f"warning: only {self.noise_left:.0%} of the noise of sigma {self.sigma:g} "
                f"survives this upload path; {remedy}",
            ]
        lines += ["", "What this does, and does not:", *(f"  - {line}" for line in NOT_PROTECTED)]
        if not self.mislabels:
            lines += [
                "  - Of DCD's three levers only the surrogate's images and the noise around them "
                "are in use. Wrong labels need other names that you may hand photos over under: "
                "--other-labels. Alone, those two brought 57 % of the whole recipe's effect (38 to "
                "75 %, on drawn faces): of 100 reconstructions 38 still showed the person, 82 "
                "without any protection."
            ]
        console.print("\n".join(lines), highlight=False, soft_wrap=True)


def protect_photos(
    place: Path,
    out: Path,
    *,
    label: str = "me",
    other_labels: Sequence[str] = (),
    surrogates: Path | None = None,
    like: Sequence[str] = (),
    dcd: DcdSpec | None = None,
    max_side: int = 512,
    uploads_as: str | None = None,
    seed: int | None = None,
    on_file: Callable[[int, int], None] | None = None,
) -> ProtectOutcome:
    """Make one person's photos ready to hand over.

    Args:
        place: a folder, a zip or a photo.
        out: a folder that does not exist yet.
        label: the person's name in the upload.
        other_labels: names under which photos may be handed over too; without them there are no
            mislabels.
        surrogates: photos of one person who lends them; None takes a drawn face.
        like: attributes of the person; the drawn face gets the opposite ones.
        dcd: the levers.
        max_side: larger photos are shrunk to this many pixels.
        uploads_as: what the platform does to uploads, such as "jpeg:75".
        seed: of all draws; None draws one and keeps it in the receipt, so that nobody who has this
            program can guess who the surrogate is.
        on_file: called with (done, total).

    Raises:
        MissingDataError, DataError: there is no photo, or none that can be read.
        TargetClassError: fewer than two photos can be used.
        SpecError: an argument is not understood, or `out` is inside `place`.
        StoreError: `out` exists, or cannot be written.
    """
    path = None if uploads_as is None else UploadPath.parse(uploads_as)
    _check_names(label, other_labels)
    for name in like:
        if name not in ATTRIBUTES:
            raise SpecError(f"--like {name!r} is no attribute{did_you_mean(name, ATTRIBUTES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} exists and is not empty; name a new folder")
    if place.resolve() in out.resolve().parents:
        raise SpecError(
            f"{out} is inside {place}, so a second run would take it for photos; name "
            "a folder outside"
        )
    seed = secrets.randbits(31) if seed is None else seed
    dcd = dcd or DcdSpec()
    if not other_labels:
        dcd = dcd.model_copy(update={"mislabel_fraction": 0.0, "target_copies": 0})

    names, own, hashes, set_aside = _load(place, max_side)
    if len(own) < 2:
        raise TargetClassError(
            f"{len(own)} photo of {place} can be used; at least 2 are needed"
            + "".join(f"; set aside: {n} ({why})" for why, n in _count(set_aside).items())
        )
    if surrogates is None:
        who, lent, origin = _drawn(len(own), like, seed)
    else:
        origin, lent, _, dropped = _load(surrogates, max_side)
        if not lent:
            raise MissingDataError(f"no photo of {surrogates} can be used; name other ones")
        who = str(surrogates)
        set_aside |= {f"{surrogates.name}/{name}": why for name, why in dropped.items()}

    rows = _rows(len(own), len(lent), who)
    me = TargetClass(ClassId(0), IdentityId(ME), (Lender(IdentityId(who), 1),))
    plan = make_plan(rows, [me], 1 + len(other_labels), dcd, seed)
    labels = [label, *other_labels]
    images, sources = [*own, *lent], [*names, *origin]

    part = out.with_name(f".{out.name}.partial")
    with disk_errors(out):
        shutil.rmtree(part, ignore_errors=True)
        receipt, listing = [], []
        key = secrets.token_bytes(16)  # names that say nothing: not the order, not the role
        recipes = plan.to_pylist()
        for done, recipe in enumerate(recipes, start=1):
            image = images[recipe["source_row"]]
            if recipe["sigma"]:
                image = noisy_image(image, recipe["sigma"], recipe["seed"])
            tag = hashlib.blake2b(
                str(recipe["recipe_id"]).encode(), key=key, digest_size=10
            ).hexdigest()
            file = Path("upload", labels[recipe["label"]], f"{tag}.png")
            data = _png(image)
            (part / file).parent.mkdir(parents=True, exist_ok=True)
            (part / file).write_bytes(data)
            os.utime(part / file, (0, 0))  # the time would tell the order
            listing.append((str(Path(*file.parts[1:])), labels[recipe["label"]]))
            row = recipe["source_row"]
            receipt.append(
                {
                    "file": str(file),
                    "role": recipe["role"],
                    "label": labels[recipe["label"]],
                    "source": sources[row],
                    "source_sha256": hashes[row] if row < len(own) else None,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "sigma": recipe["sigma"],
                    "seed": recipe["seed"],
                }
            )
            if on_file is not None:
                on_file(done, len(recipes))
        (part / "upload" / "labels.csv").write_text(_csv(sorted(listing)))
        left, survives = _survival(own, dcd, seed, path)
        outcome = ProtectOutcome(
            upload=str(out / "upload"),
            receipt=str(out / "receipt.json"),
            label=label,
            photos=len(own),
            files=plan.num_rows,
            roles=count_roles(plan),
            surrogate=who,
            set_aside=_count(set_aside),
            noise_left=left,
            sigma=dcd.surrogate_sigma,
            sigma_that_survives=survives,
            mislabels=bool(other_labels),
        )
        whole = {
            "format": "dcdctl-receipt/1",
            "undo": "Ask for the files of every role but 'clean' to be deleted, and for those of "
            "role 'mislabelled' to be put under your label. Your own photos were not touched.",
            "seed": seed,
            "settings": dcd.model_dump(mode="json"),
            "set_aside": set_aside,
            "summary": outcome.model_dump(mode="json"),
            "files": sorted(receipt, key=lambda entry: str(entry["file"])),
        }
        write_atomic(part / "receipt.json", json.dumps(whole, indent=2) + "\n")
        (part / "receipt.json").chmod(0o600)
        if out.exists():
            out.rmdir()
        part.rename(out)
    return outcome


def _check_names(label: str, others: Sequence[str]) -> None:
    names = [label, *others]
    for name in names:
        if not name or name != Path(name).name or name.startswith(".") or name == "labels.csv":
            raise SpecError(f"label {name!r} cannot be a folder's name; use letters and digits")
        if names.count(name) > 1:
            raise SpecError(f"label {name!r} is given twice; --other-labels must be other names")


def _load(place: Path, max_side: int) -> tuple[list[str], list[Image8], list[str], dict[str, str]]:
    """Return names, pixels and hashes of the photos that can be used, and why the others cannot."""
    names: list[str] = []
    pixels: list[Image8] = []
    hashes: list[str] = []
    bad: dict[str, str] = {}
    for photo in read_photos(place):
        digest = hashlib.sha256(photo.data).hexdigest()
        if photo.reason is None and digest in hashes:
            bad[photo.name] = "a copy of another photo"
            continue
        try:
            if photo.reason is not None:
                raise UnreadableImage(photo.reason)
            image = decode_upright(photo.data, max_side)
        except UnreadableImage as verdict:
            bad[photo.name] = verdict.reason
            continue
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        names.append(photo.name)
        pixels.append(np.asarray(image, dtype=np.uint8))
        hashes.append(digest)
    return names, pixels, hashes, bad


def _drawn(count: int, like: Sequence[str], seed: int) -> tuple[str, list[Image8], list[str]]:
    """Return a drawn person with the opposite attributes: who, images, and their sources."""
    people = [f"drawn person {i}" for i in range(DRAWN_PEOPLE)]
    labels = face_attributes(seed, "surrogate", np.arange(DRAWN_PEOPLE))
    table = _table(
        [ME, *people],
        [0] + [-1] * DRAWN_PEOPLE,
        ["train"] + ["surrogate"] * DRAWN_PEOPLE,
        [list(like), *labels],
    )
    (found,) = assign_surrogates(table, [IdentityId(ME)], "attribute-opposite", 1, seed)
    surrogate = found.surrogates[0].identity
    number = people.index(surrogate)
    images = render_faces(seed, "surrogate", np.full(count, number), np.arange(count), DRAWN_SIZE)
    who = f"{surrogate} ({', '.join(labels[number]) or 'no attribute'})"
    return who, list(images), [f"{surrogate}, image {i}" for i in range(count)]


def _rows(own: int, lent: int, who: str) -> pa.Table:
    return _table(
        [ME] * own + [who] * lent,
        [0] * own + [-1] * lent,
        ["train"] * own + ["surrogate"] * lent,
        [[]] * (own + lent),
    )


def _table(
    identities: list[str], labels: list[int], splits: list[str], attributes: list[list[str]]
) -> pa.Table:
    count = len(identities)
    columns = [list(range(count)), identities, labels, splits, [""] * count, attributes]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)


def _png(image: Image8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=_PNG_EFFORT)
    return file.getvalue()


def _survival(
    own: list[Image8], dcd: DcdSpec, seed: int, path: UploadPath | None
) -> tuple[float | None, float | None]:
    if path is None:
        return None, None
    probes = own[:_PROBES]
    left = float(np.mean([surviving_share(p, dcd.surrogate_sigma, seed, path) for p in probes]))
    if left >= ENOUGH:
        return left, dcd.surrogate_sigma
    found = [surviving_sigma(probe, seed, path) for probe in probes]
    return left, None if None in found else max(sigma for sigma in found if sigma is not None)


def _count(reasons: dict[str, str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons.values()).items()))


def _csv(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label"])
    writer.writerows(rows)
    return text.getvalue()
