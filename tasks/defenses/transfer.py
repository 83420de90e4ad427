"""TL-DMI (Ho et al., CVPR 2024): private images teach the last layers only.

The first layers come from a network that learnt other people, and stay as they are.
"""

from __future__ import annotations

from torch import nn

from tasks.defenses.defense import Defense
from tasks.defenses.networks import frozen_modules
from tasks.defenses.spec import TransferSpec
from tasks.errors import TrainingError


class Transfer(Defense):
    """Loads public weights once, and keeps the frozen stages in evaluation mode."""

    def __init__(self, spec: TransferSpec) -> None:
        self.spec = spec

    def begin(self, network: nn.Module) -> None:
        """Take every weight of the public network that fits; its last layer has other classes.

        Raises:
            TrainingError: no weights are named, or those of the frozen stages do not fit.
        """
        from tasks.checkpoint import load_checkpoint

        if self.spec.weights is None:
            raise TrainingError(
                "defence transfer needs weights that public data taught; name a checkpoint folder "
                "in training.defense.weights, such as `dcdctl train` writes"
            )
        own = network.state_dict()
        public = load_checkpoint(self.spec.weights).module.state_dict()
        fitting = {k: v for k, v in public.items() if k in own and own[k].shape == v.shape}
        frozen = {id(m) for m in frozen_modules(network, self.spec.frozen)}
        for name, module in network.named_modules():
            if id(module) not in frozen:
                continue
            needed = [f"{name}.{part}" for part in module.state_dict()]
            missing = next((part for part in needed if part not in fitting), None)
            if missing is not None:
                raise TrainingError(
                    f"the weights {self.spec.weights} have no {missing} of this network's size; "
                    "name a checkpoint of the same training.architecture and width"
                )
        network.load_state_dict(fitting, strict=False)

    def start_epoch(self, network: nn.Module) -> None:
        """Keep the frozen stages' statistics as they are."""
        for module in frozen_modules(network, self.spec.frozen):
            module.eval()
