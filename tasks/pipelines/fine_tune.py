"""Fine-tuning: the network has learnt other people before, and goes on with the upload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tasks.errors import TrainingError
from tasks.pipelines.pipeline import Pipeline
from tasks.pipelines.spec import FineTuneSpec

if TYPE_CHECKING:
    from tasks.training_spec import TrainingSpec


class FineTune(Pipeline):
    """Starts from public weights, at a lower learning rate.

    Args:
        spec: the settings.
        weights: state of a network of the same architecture and width, or None.
    """

    def __init__(self, spec: FineTuneSpec, weights: Mapping[str, Tensor] | None) -> None:
        self.spec = spec
        self.weights = weights

    def settings(self, training: TrainingSpec) -> TrainingSpec:
        """Return the settings with a lower peak of the learning rate."""
        rate = training.learning_rate * self.spec.learning_rate_share
        return training.model_copy(update={"learning_rate": rate})

    def begin(self, network: nn.Module) -> None:
        """Take every weight that fits; the last layer has other classes.

        Raises:
            TrainingError: there are no weights, or none of the convolutions fit.
        """
        if self.weights is None:
            raise TrainingError(
                "trainer fine-tune needs a network that learnt other people, and the public data "
                "names fewer than two people with two images each; leave it out"
            )
        own = network.state_dict()
        fits = {k: v for k, v in self.weights.items() if k in own and own[k].shape == v.shape}
        if not any(value.ndim == 4 for value in fits.values()):
            raise TrainingError(
                "the pretrained network is of another architecture or width, so that no layer of "
                "it fits; train it with the same settings"
            )
        network.load_state_dict(fits, strict=False)
