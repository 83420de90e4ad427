"""What an experiment would take on one GPU, from counted multiplications: an estimate, no promise.

Only for networks of torchvision at 65 pixels and more; below, a GPU waits for its own kernels and
the count says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.spec import ExperimentSpec
    from tasks.training_spec import TrainingSpec

TFLOPS = (20.0, 70.0)
"""Sustained by one large GPU in bfloat16 on residual nets of 224 pixels, badly and well fed."""

SMALL = 64
BACKWARD = 3  # a step costs three forward passes


def gpu_hours(
    spec: ExperimentSpec, training_rows: int, judge_rows: int, attack_images: int
) -> tuple[float, float] | None:
    """Return low and high estimates, None for small images.

    An image of an attack costs a step of the classifier, and as much again for the prior.

    Args:
        spec: the experiment.
        training_rows: rows times epochs of all trials.
        judge_rows: rows of one epoch of a judge.
        attack_images: over all trials.
    """
    size = spec.data.image_size
    if size <= SMALL:
        return None
    own = forward_flops(spec.training, size)
    total = BACKWARD * own * (training_rows + 2 * attack_images)
    judges = [spec.evaluation.judge()]
    judges += [spec.evaluation.second_judge()] if spec.evaluation.second.enabled else []
    for judge in judges:
        total += BACKWARD * forward_flops(judge, size) * judge.epochs * judge_rows
    low, high = (total / (1e12 * speed) / 3600 for speed in reversed(TFLOPS))
    return round(low, 1), round(high, 1)


def forward_flops(training: TrainingSpec, size: int) -> int:
    """Return the operations of one image through a network, counted without computing it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tasks.classifiers import build_model
    from tasks.draws import Draws

    with torch.device("meta"):
        network = build_model(training, 100, Draws(0)).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, size, size))
    return int(counter.get_total_flops())
