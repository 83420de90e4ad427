"""Which settings mean which defence."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tasks.defenses.bido import Bido
from tasks.defenses.defense import Defense
from tasks.defenses.label_smoothing import LabelSmoothing
from tasks.defenses.mid import Mid
from tasks.defenses.random_erasing import RandomErasing
from tasks.defenses.spec import (
    AnyDefense,
    BidoSpec,
    LabelSmoothingSpec,
    MidSpec,
    NegLsSpec,
    RandomErasingSpec,
    TransferSpec,
    TrapMidSpec,
)
from tasks.defenses.transfer import Transfer
from tasks.defenses.trap_mid import TrapMid
from tasks.draws import Draws


def make_defense(
    spec: AnyDefense,
    network: nn.Module,
    draws: Draws,
    public: Mapping[str, Tensor] | None = None,
) -> Defense:
    """Return what changes the training of a network that `change_network` has prepared.

    DP-SGD is not among them: it has a loop of its own, `dp_sgd.fit_privately`.

    Args:
        spec: the settings.
        network: to be trained.
        draws: of the defence.
        public: state of a network that learnt public people.
    """
    if isinstance(spec, MidSpec):
        return Mid(spec, network)
    if isinstance(spec, BidoSpec):
        return Bido(spec, network)
    if isinstance(spec, NegLsSpec):
        return LabelSmoothing(spec.alpha, spec.start, spec.full)
    if isinstance(spec, LabelSmoothingSpec):
        return LabelSmoothing(spec.alpha)
    if isinstance(spec, RandomErasingSpec):
        return RandomErasing(spec)
    if isinstance(spec, TransferSpec):
        return Transfer(spec, public)
    if isinstance(spec, TrapMidSpec):
        return TrapMid(spec, draws)
    return Defense()
