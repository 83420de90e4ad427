"""Turn Fashion-MNIST's files into a folder of images, one subfolder a class.

    apt-get install -y dataset-fashion-mnist      # Debian and Ubuntu; no account, 31 MB
    python examples/fashion_mnist.py fashion-mnist --limit 400

The files are the original ones (Xiao, Rasul and Vollgraf, 2017; MIT licence); `--source` reads them
from another folder. Images stay as they are: 28 x 28 grey PNG, named after their place in the file,
so that a larger limit adds images and changes none.
"""

from __future__ import annotations

import argparse
import gzip
import math
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
"""Names of the labels 0 to 9, as the data set's page lists them."""

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

FILES = (
    ("train", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ("t10k", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes: two zeros, type 8, the number of axes, each length."""
    data = gzip.decompress(path.read_bytes())
    zeros, kind, axes = struct.unpack(">HBB", data[:4])
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    if (zeros, kind) != (0, 8) or len(data) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{path} is not an IDX file of bytes")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def write_folder(source: Path, out: Path, limit: int | None) -> Counter[str]:
    """Write out/<class>/<file>-<index>.png, at most `limit` of each class; return the counts."""
    written: Counter[str] = Counter()
    for name in CLASSES:
        (out / name).mkdir(parents=True, exist_ok=True)
    for part, images, labels in FILES:
        pairs = zip(read_idx(source / images), read_idx(source / labels), strict=True)
        for index, (pixels, label) in enumerate(pairs):
            name = CLASSES[label]
            if limit is None or written[name] < limit:
                Image.fromarray(pixels).save(out / name / f"{part}-{index:05d}.png")
                written[name] += 1
    return written


def main() -> int:
    """Run from the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--limit", type=int, help="images of each class; all 7 000 without it")
    parser.add_argument("--source", type=Path, default=DEBIAN, help=f"default: {DEBIAN}")
    args = parser.parse_args()
    try:
        written = write_folder(args.source, args.out, args.limit)
    except FileNotFoundError as error:
        print(
            f"{error.filename} is not there; `apt-get install -y dataset-fashion-mnist` brings it, "
            "or name its folder with --source",
            file=sys.stderr,
        )
        return 1
    print(f"{written.total():,} images of {len(written)} classes in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
