"""A trained model behind its output defence: some images are held out, and the defence is fitted.

White-box attacks get the network itself and never meet it; scores and labels come through it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from tasks.types import Image8

if TYPE_CHECKING:
    from torch import Tensor

    from orchestrator.trial import Fit
    from tasks.checkpoint import Checkpoint
    from tasks.serving.spec import ServingSpec
    from tasks.training_spec import TrainingSpec

_AT_ONCE = 256


def fit_served(
    fit: Fit,
    images: Image8,
    recipe: pa.Table,
    num_classes: int,
    training: TrainingSpec,
    seed: int,
    serving: ServingSpec,
) -> Checkpoint:
    """Train on a plan, and fit the output defence where there is one.

    Args:
        fit: trains a network.
        images: base images.
        recipe: the plan; with an output defence a share of its source images is held out.
        num_classes: outputs.
        training: settings of the network.
        seed: of the experiment.
        serving: how it answers.
    """
    from tasks.draws import Draws
    from tasks.serving.output import fit_output, held_out_rows

    spec, draws = serving.defense, Draws(seed, ("serving",))
    if spec.name == "none":
        return fit(images, recipe, num_classes, training, seed)
    away = held_out_rows(recipe["source_row"].to_numpy(), spec, draws)
    learnt, left = (recipe.filter(pa.array(mask)) for mask in (~away, away))
    checkpoint = fit(images, learnt, num_classes, training, seed)
    scores = [_scores(checkpoint, images, part) for part in (learnt, left)]
    output = fit_output(spec, scores[0], scores[1], draws)
    meta = checkpoint.meta.model_copy(update={"serving": serving})
    return replace(checkpoint, meta=meta, output=output)


def _scores(checkpoint: Checkpoint, images: Image8, recipe: pa.Table) -> Tensor:
    import torch

    from orchestrator.trial import training_rows

    classifier = checkpoint.classifier()
    found = [torch.empty(0, classifier.num_classes)]
    for start in range(0, recipe.num_rows, _AT_ONCE):
        views, _ = training_rows(images, recipe.slice(start, _AT_ONCE))
        found.append(classifier.scores(views.to(classifier.device)).cpu())
    return torch.cat(found)
