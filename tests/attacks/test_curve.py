"""Curves: sums on the device, averaged over batches and over shards of the targets."""

from __future__ import annotations

import pytest
import torch

from attacks.curve import Curve, join_curves


def test_batches_of_one_step_are_averaged_by_their_candidates() -> None:
    curve = Curve()
    for step, values in ((0, [4.0, 2.0]), (1, [1.0, 1.0]), (0, [9.0]), (1, [4.0])):
        curve.add(step, torch.tensor(values, requires_grad=True))
    assert curve.points() == (5.0, 2.0)


def test_shards_are_averaged_by_their_targets_and_an_early_end_lasts() -> None:
    assert join_curves([(3.0, 1.0), (6.0,)], [2, 1]) == pytest.approx((4.0, 8 / 3))
    assert join_curves([(), (6.0,)], [2, 1]) == (6.0,)
    assert join_curves([(), ()], [2, 1]) == ()
