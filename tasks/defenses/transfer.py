"""TL-DMI (Ho et al., CVPR 2024): private images teach the last layers only.

The first layers come from a network that learnt other people, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tasks.defenses.defense import Defense
from tasks.defenses.networks import frozen_modules
from tasks.defenses.spec import TransferSpec
from tasks.errors import TrainingError


class Transfer(Defense):
    """Loads public weights once, and keeps the frozen stages in evaluation mode.

    Args:
        spec: the settings.
        public: state of a network that learnt public people; taken where the settings name none.
    """

    def __init__(self, spec: TransferSpec, public: Mapping[str, Tensor] | None = None) -> None:
        self.spec = spec
        self.public = public

    def begin(self, network: nn.Module) -> None:
        """Take every weight of the public network that fits; its last layer has other classes.

        Raises:
            TrainingError: there are no weights, or those of the frozen stages do not fit.
        """
        own, public = network.state_dict(), self._weights()
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

    def _weights(self) -> Mapping[str, Tensor]:
        from tasks.checkpoint import load_checkpoint

        if self.spec.weights is not None:
            return load_checkpoint(self.spec.weights).module.state_dict()
        if self.public is None:
            raise TrainingError(
                "defence transfer needs a network that learnt other people, and the public data "
                "name fewer than two people with two images each; name a checkpoint folder in "
                "training.defense.weights, such as `dcdctl train` writes"
            )
        return self.public

    def start_epoch(self, network: nn.Module) -> None:
        """Keep the frozen stages' statistics as they are."""
        for module in frozen_modules(network, self.spec.frozen):
            module.eval()
