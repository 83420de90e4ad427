"""How fast is `dcdctl augment`, against the loop of the official code and the machine's own limit?

    python benchmarks/augment.py                    # all of it, about five minutes
    python benchmarks/augment.py --images 16 --rounds 1 --sections noise,loop

The built-in faces are rendered and saved as JPEG and PNG files; both sides read the same files and
make the same samples, one core each. The other side is the loop that the released code runs for a
noisy copy (PIL, ToTensor, torch.randn, clamp, ToPILImage) plus a save with PIL in the same codec,
which that code does not do: it keeps its images in memory.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).parents[1])  # this folder has an `augment` too: this file

import numpy as np
import pyarrow as pa
from PIL import Image

from augment.dcd import apply_recipes_8bit
from augment.encode import Codec
from benchmarks.timing import alternate, circumstances, ratios, spread
from orchestrator.image_files import ImageFiles
from orchestrator.materialise import write_block
from orchestrator.shards import Format, Samples, ShardWriter
from tasks.datasets.decode import decode
from tasks.datasets.faces import render_faces

SIGMAS = (8 / 255, 0.003)  # the official code's, of target and of surrogate


@dataclass(frozen=True)
class Work:
    """What both sides do: files to read, and the sigma and seed of each copy of each."""

    files: list[Path]
    size: int
    copies: int
    folder: Path

    def recipes(self, file: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sigma and seed of a file's copies; half of the files are lent."""
        sigma = np.full(self.copies, SIGMAS[file % 2], np.float32)
        return sigma, np.arange(self.copies, dtype=np.uint64) + np.uint64(1000 * file)

    @property
    def samples(self) -> int:
        """Images that a run writes."""
        return len(self.files) * self.copies


def official(work: Work, save: Callable[[Image.Image, Path], None]) -> None:
    """Run the loop of the released code, with a save at its end."""
    import torch
    from torchvision.transforms import functional

    torch.set_num_threads(1)
    out = fresh(work.folder / "official")
    for at, path in enumerate(work.files):
        for copy in range(work.copies):
            tensor = functional.to_tensor(Image.open(path).convert("RGB"))
            noisy = tensor + SIGMAS[at % 2] * torch.randn(tensor.shape)
            save(functional.to_pil_image(torch.clamp(noisy, 0, 1)), out / f"{at}-{copy}")


def ours(work: Work, format_: Format, codec: Codec) -> None:
    """Decode each file once and write its copies as `dcdctl augment` does, hashes included."""
    out = fresh(work.folder / "ours")
    writer = ShardWriter(out / "public", out / "notes", format_, codec, ("a",))

    def parts() -> object:
        step = max(1, 48 // work.copies)
        for start in range(0, len(work.files), step):
            here = range(start, min(start + step, len(work.files)))
            sources = np.empty((len(here) * work.copies, work.size, work.size, 3), np.uint8)
            for i, at in enumerate(here):
                image = decode(work.files[at].read_bytes(), work.size, "center")
                sources[i * work.copies : (i + 1) * work.copies] = image
            sigma, seed = (np.concatenate(x) for x in zip(*map(work.recipes, here), strict=True))
            ids = [f"{start:08x}{i:08x}" for i in range(len(sources))]
            noisy = apply_recipes_8bit(sources, sigma, seed)
            yield Samples(ids, [0] * len(ids), noisy, sources, sigma > 0)

    writer.write(0, parts())


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


SAVES: dict[str, Callable[[Image.Image, Path], None]] = {
    "png": lambda image, path: image.save(f"{path}.png"),
    "webp-lossless": lambda image, path: image.save(f"{path}.webp", lossless=True),
    "jpeg:95": lambda image, path: image.save(f"{path}.jpg", quality=95),
}


def noise(args: argparse.Namespace, images: np.ndarray) -> None:
    """Compare the table with NumPy's and torch's normal numbers, 8 bits in and out."""
    import torch

    torch.set_num_threads(1)
    sigma = np.full(len(images), SIGMAS[0], np.float32)
    seed = np.arange(len(images), dtype=np.uint64)

    def numpy_normal() -> None:
        for image, key in zip(images, seed, strict=True):
            generator = np.random.Generator(np.random.SFC64(int(key)))
            normal = generator.standard_normal(image.shape, dtype=np.float32)
            noisy = np.clip(image / np.float32(255) + normal * sigma[0], 0, 1)
            np.rint(noisy * 255).astype(np.uint8)

    def torch_normal() -> None:
        for image in images:
            unit = torch.from_numpy(image).float().div_(255)
            noisy = (unit + float(sigma[0]) * torch.randn(unit.shape)).clamp_(0, 1)
            noisy.mul_(255).round_().byte()

    contestants = {
        "numpy normal": numpy_normal,
        "torch normal": torch_normal,
        "table": lambda: apply_recipes_8bit(images, sigma, seed),
    }
    seconds = alternate(contestants, args.rounds)
    print(f"\nnoise alone, {len(images)} images, {args.rounds} rounds")
    for name, taken in seconds.items():
        each = [1e3 * s / len(images) for s in taken]
        times = ratios(taken, seconds["table"])
        print(f"  {name:<14} {spread(each, '.3f')} ms an image, {spread(times)} times the table's")


def loop(args: argparse.Namespace, work: Work, kind: str) -> None:
    """Compare with the official loop, by codec, and with the machine's own limit."""
    cases: list[tuple[str, Format, str, str]] = [
        ("png", "imagefolder", "png", "same codec"),
        ("png", "webdataset", "png", "same codec"),
        ("webp-lossless", "imagefolder", "webp-lossless", "same codec"),
        ("jpeg:95", "imagefolder", "jpeg:95", "same codec, loses noise"),
        ("png", "parquet", "raw", "default output"),
    ]
    for theirs, form, mine, remark in cases:
        contestants = {
            "official": functools.partial(official, work, SAVES[theirs]),
            "ours": functools.partial(ours, work, form, Codec.parse(mine)),
        } | isolated(work, form, Codec.parse(mine))
        seconds = alternate(contestants, args.rounds)
        a, b = seconds["official"], seconds["ours"]
        parts = [seconds[name] for name in ("decode", "noise", "encode")]
        limit = [sum(x) for x in zip(*parts, strict=True)]
        share = [x / y for x, y in zip(limit, b, strict=True)]
        rates = ", ".join(
            f"{name} {spread([work.samples / s for s in seconds[name]], '.0f')}"
            for name in ("official", "ours")
        )
        single = ", ".join(
            f"{name} {1e3 * float(np.median(seconds[name])) / work.samples:.2f}"
            for name in ("decode", "noise", "encode")
        )
        print(
            f"  {theirs} -> {form} {mine} ({remark}), from {kind}, {work.copies} a source\n"
            f"    images/s/core: {rates}; {spread(ratios(a, b))} times\n"
            f"    of the machine's limit: {spread(share)} (ms a sample: {single})",
            flush=True,
        )


def isolated(work: Work, format_: Format, codec: Codec) -> dict[str, Callable[[], object]]:
    """Return decoding, noise and encoding, each alone on data that is in memory."""
    contents = [path.read_bytes() for path in work.files]
    once = [decode(content, work.size, "center") for content in contents]
    batches = [np.repeat(image[None], work.copies, axis=0) for image in once]
    recipes = [work.recipes(at) for at in range(len(once))]
    noisy = [apply_recipes_8bit(b, *r) for b, r in zip(batches, recipes, strict=True)]

    together = np.concatenate(noisy)

    def encode() -> None:
        if codec.name == "raw":  # no encoding: what costs is the file in memory
            for batch in noisy:
                column = pa.array([image.tobytes() for image in batch], pa.binary())
                pa.parquet.write_table(
                    pa.table([column], ["image"]),
                    io.BytesIO(),
                    compression="none",
                    use_dictionary=False,
                    write_statistics=False,
                )
        else:
            codec.encode(together)

    return {
        "decode": lambda: [decode(content, work.size, "center") for content in contents],
        "noise": lambda: [apply_recipes_8bit(b, *r) for b, r in zip(batches, recipes, strict=True)],
        "encode": encode,
    }


def block(shard: int, samples: int, sources: int) -> pa.Table:
    """Return a shard's recipes, as `materialise` hands them to a worker."""
    rng = np.random.default_rng(shard)
    return pa.table(
        {
            "sample_id": [f"{shard:08x}{i:08x}" for i in range(samples)],
            "source_row": rng.integers(0, sources, samples),
            "label": np.zeros(samples, np.int32),
            "sigma": np.resize(np.array(SIGMAS, np.float32), samples),
            "seed": rng.integers(0, 2**63, samples).astype(np.uint64),
            "truncate": np.zeros(samples, np.bool_),
            "native": np.zeros(samples, np.uint32),
            "shard": np.full(samples, shard),
        }
    )


def through_ray(args: argparse.Namespace, images: np.ndarray, folder: Path) -> None:
    """Compare Ray Data on two workers with a process pool of two that runs the same function."""
    import multiprocessing

    from clusters.embedded import embedded_ray
    from orchestrator.block_stream import map_blocks

    np.save(folder / "images.npy", images)
    mapped = ImageFiles.of([np.load(folder / "images.npy", mmap_mode="r")], "benchmark")
    per_shard = (128 << 20) // images[0].nbytes
    blocks = [block(i, per_shard, len(images)) for i in range(args.shards)]
    total = per_shard * args.shards

    def run(name: str) -> functools.partial[object]:
        out = fresh(folder / name)
        writer = ShardWriter(out / "public", out / "notes", "parquet", Codec("raw"), ("a",))
        return functools.partial(write_block, images=mapped, writer=writer)

    # Forked before Ray starts its threads.
    with multiprocessing.get_context("fork").Pool(2) as pool, embedded_ray(2):
        seconds = alternate(
            {
                "pool": lambda: list(pool.imap_unordered(run("pool"), blocks, chunksize=1)),
                "ray": lambda: list(map_blocks(blocks, run("ray"))),
            },
            args.rounds,
        )
    print(f"\ntwo workers, {args.shards} shards of {per_shard}, decoded images to raw Parquet")
    for name, taken in seconds.items():
        print(f"  {name:<5} {spread([total / s for s in taken], '.0f')} images/s")
    print(f"  Ray Data reaches {spread(ratios(seconds['pool'], seconds['ray']))} of the pool")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=96, help="source files")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2], help="of each source")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shards", type=int, default=8, help="of the comparison with a pool")
    parser.add_argument("--sections", default="noise,loop,ray")
    args = parser.parse_args()
    sections = args.sections.split(",")
    print(circumstances())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = args.images
        images = render_faces(0, "private", np.arange(count), np.zeros(count, int), args.size)
        if "noise" in sections:
            noise(args, images)
        for kind, options in {"jpg": {"quality": 95}, "png": {}}.items():
            files = [folder / f"{i:05}.{kind}" for i in range(count)]
            for path, image in zip(files, images, strict=True):
                Image.fromarray(image).save(path, **options)
            for copies in args.copies if "loop" in sections else []:
                print(f"\n{count} {kind} files of {args.size} pixels, {args.rounds} rounds")
                loop(args, Work(files, args.size, copies, folder), kind)
        if "ray" in sections:
            through_ray(args, images, folder)
    print(f"\n{circumstances()}")


if __name__ == "__main__":
    main()
