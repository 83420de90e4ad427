"""Group normalisation of an attacked DP-SGD network: in bfloat16, and in 32-bit floats inside it.

    OMP_NUM_THREADS=1 python benchmarks/group_norm.py --rounds 5

Forward and backward, to the image, of the default network with its batch normalisation replaced, in
bfloat16 as attacks run it, one thread. `native` leaves the layer to the precision around it, `ours`
is `tasks.defenses.networks.GroupNorm`, `no norm` has none: what the rest costs. Milliseconds an
image, median [quartiles]; ratios round by round.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import torch
from torch import nn

from benchmarks.timing import alternate, circumstances, ratios, spread
from tasks.classifiers import TorchClassifier, build_model
from tasks.defenses.networks import GroupNorm, replace_batchnorm
from tasks.draws import Draws
from tasks.training_spec import TrainingSpec

BATCH, CLASSES, SIZE = 128, 40, 32


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(circumstances())
    sides = {"native": nn.GroupNorm, "ours": GroupNorm, "no norm": None}
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    contestants = {name: _step(network(kind), images) for name, kind in sides.items()}
    seconds = alternate(contestants, args.rounds)
    each = {name: [1000 * s / BATCH for s in found] for name, found in seconds.items()}
    print("| side | ms an image |\n|---|---|")
    for name, found in each.items():
        print(f"| {name} | {spread(found)} |")
    print(f"native / ours {spread(ratios(each['native'], each['ours']))}")


def network(kind: type[nn.GroupNorm] | None) -> TorchClassifier:
    """Return the default network with one kind of normalisation."""
    module = build_model(TrainingSpec(), CLASSES, Draws(0))
    replace_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                channels = child.num_channels
                layer = nn.Identity() if kind is None else kind(math.gcd(32, channels), channels)
                setattr(parent, name, layer)
    module = module.to(memory_format=torch.channels_last)
    return TorchClassifier(module, CLASSES, SIZE, torch.bfloat16)


def _step(classifier: TorchClassifier, images: torch.Tensor) -> object:
    def step() -> None:
        given = images.clone().requires_grad_()
        classifier.logits(given).sum().backward()

    return step


if __name__ == "__main__":
    main()
