"""What a rival's network learns at one strength or another, to see how far its curve must reach.

    python benchmarks/strengths.py --seeds 1001 --processes 2

The built-in people of each seed without DCD, as `dcdctl compare` trains its rows; test images that
are known. A curve that ends where accuracy is still whole shows its rival weaker than it is. These
seeds are none of docs/results.md, and nothing is attacked, so that curves may be chosen by them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.drawn import print_known

COCO = {"name": "bido", "measure": "coco"}
NEG = {"name": "neg-ls"}
TRAP = {"name": "trap-mid"}
STRENGTHS: tuple[dict[str, Any], ...] = (
    {"name": "none"},
    *({"name": "bido", "scale": scale} for scale in (10, 30, 100)),
    *({**COCO, "scale": scale} for scale in (0.3, 1, 3, 10, 30)),
    *({**NEG, "alpha": alpha} for alpha in (-0.3, -0.6, -1, -2)),
    *({**TRAP, "weight": weight} for weight in (0.01, 0.03, 0.1)),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001])
    every = range(len(STRENGTHS))
    parser.add_argument("--only", type=int, nargs="+", default=list(every), choices=every)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    asked = {f"{i}: {', '.join(map(str, STRENGTHS[i].values()))}": STRENGTHS[i] for i in args.only}
    print_known(args.seeds, asked, args.processes)


if __name__ == "__main__":
    main()
