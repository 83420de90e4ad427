"""What DP-SGD spends: noise for a budget and the budget of a noise, by Opacus' accountants."""

from __future__ import annotations

import functools
import math
import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tasks.defenses.spec import DpSgdSpec
from tasks.errors import TrainingError
from tasks.spec import Spec

if TYPE_CHECKING:
    from tasks.training_spec import TrainingSpec

_FAINT = 0.3
"""Noise below which the PRV accountant's grid would not fit into memory; RDP bounds it instead."""


class Guarantee(Spec):
    """Differential privacy of one training: what anyone can learn of one image's being there."""

    epsilon: float | None = Field(description="null: no noise, so nothing is guaranteed.")
    delta: float
    noise_multiplier: float
    sample_rate: float = Field(description="Chance of an image to be in a step.")
    steps: int
    max_grad_norm: float
    accountant: Literal["prv", "rdp", "none"]
    unit: Literal["one training image"] = "one training image"

    def __str__(self) -> str:
        if self.epsilon is None:
            return "none: no noise"
        return f"epsilon {self.epsilon:.3g}, delta {self.delta:g}, for {self.unit}"


def guarantee_of(training: TrainingSpec, rows: int) -> Guarantee | None:
    """Return what a training on so many rows guarantees; None where it is not DP-SGD.

    Raises:
        TrainingError: batches are larger than the data, delta is too large, or epsilon is too small
            for so many steps.
    """
    spec = training.defense
    if not isinstance(spec, DpSgdSpec):
        return None
    batch = spec.batch_size or training.batch_size
    if batch > rows:
        raise TrainingError(
            f"dp-sgd draws {batch} rows a step, and there are {rows}; lower "
            "training.defense.batch_size or training.batch_size"
        )
    batch = min(batch * spec.accumulate, rows)
    if spec.delta * rows >= 1:
        raise TrainingError(
            f"training.defense.delta={spec.delta:g} is not below one over the {rows} rows, so the "
            f"guarantee would say nothing; set it to {0.1 / rows:.1g}"
        )
    rate = batch / rows
    steps = training.passes * (rows // batch)
    noise = spec.noise_multiplier
    if noise is None:
        assert spec.epsilon is not None
        noise = noise_for(spec.epsilon, spec.delta, rate, steps)
    epsilon, accountant = spent(noise, spec.delta, rate, steps)
    return Guarantee(
        epsilon=epsilon,
        delta=spec.delta,
        noise_multiplier=noise,
        sample_rate=rate,
        steps=steps,
        max_grad_norm=spec.max_grad_norm,
        accountant=accountant,
    )


@functools.cache
def spent(
    noise: float, delta: float, rate: float, steps: int
) -> tuple[float | None, Literal["prv", "rdp", "none"]]:
    """Return the epsilon of the Poisson-subsampled Gaussian mechanism, and whose figure it is.

    PRV (Gopi et al., NeurIPS 2021) where it can be computed, else RDP, which is an upper bound.
    """
    from opacus.accountants import create_accountant

    if noise == 0:
        return None, "none"
    kind: Literal["prv", "rdp"] = "rdp" if noise < _FAINT else "prv"
    accountant = create_accountant(kind)
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the range of RDP's orders
        epsilon = float(accountant.get_epsilon(delta=delta))
    return (epsilon if math.isfinite(epsilon) else None), kind


@functools.cache
def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Return the least noise multiplier, to three digits, that keeps within a budget.

    Raises:
        TrainingError: no reasonable noise does.
    """
    low, high = 0.0, 1.0
    while not _within(high, epsilon, delta, rate, steps):
        low, high = high, 2 * high
        if high > 1e4:
            raise TrainingError(
                f"training.defense.epsilon={epsilon:g} is out of reach in {steps} steps of "
                f"{rate:.2g} of the rows; raise it, or train for fewer epochs"
            )
    while high - low > 0.001 * high:
        middle = (low + high) / 2
        if _within(middle, epsilon, delta, rate, steps):
            high = middle
        else:
            low = middle
    return (
        float(f"{high:.4g}") if _within(float(f"{high:.4g}"), epsilon, delta, rate, steps) else high
    )


def _within(noise: float, epsilon: float, delta: float, rate: float, steps: int) -> bool:
    found, _ = spent(noise, delta, rate, steps)
    return found is not None and found <= epsilon
