"""How long does `dcdctl protect` take: to say its help, and for each photo?

    python benchmarks/protect.py

The photos are built-in faces, enlarged to 1600 x 1200 and saved as JPEG; the command shrinks them
to 512 pixels, as it does by default, and writes three files for each.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
from PIL import Image

from benchmarks.timing import circumstances, spread
from tasks.datasets.faces import render_faces

DCDCTL = Path(sys.executable).with_name("dcdctl")


def seconds_of(*words: str | Path) -> float:
    started = time.perf_counter()
    subprocess.run([DCDCTL, *words], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    print(circumstances())
    helps = [seconds_of("protect", "--help") for _ in range(args.rounds + 1)][1:]
    print(f"protect --help: {spread(helps)} s (n={args.rounds})")
    with tempfile.TemporaryDirectory() as temporary:
        photos, out = Path(temporary, "photos"), Path(temporary, "out")
        photos.mkdir()
        shots = np.arange(args.photos)
        for i, face in enumerate(render_faces(1, "private", 0 * shots, shots, 256)):
            image = Image.fromarray(face).resize((1600, 1200), Image.Resampling.BICUBIC)
            image.save(photos / f"{i:04}.jpg", quality=92)
        taken = []
        for _ in range(args.rounds):
            shutil.rmtree(out, ignore_errors=True)
            taken.append(seconds_of("protect", photos, "--out", out))
    each = [s / args.photos for s in taken]
    print(
        f"{args.photos} photos: {spread(taken)} s, {spread(each, '.3f')} s a photo (n={len(each)})"
    )


if __name__ == "__main__":
    main()
