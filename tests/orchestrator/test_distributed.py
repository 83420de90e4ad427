"""Training by Ray Train gives the model that training in this process gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from augment.plan import make_plan
from augment.spec import DcdSpec
from orchestrator.distributed import fit_distributed
from orchestrator.trial import fit_here
from tasks.defenses.spec import (
    AnyDefense,
    MidSpec,
    NegLsSpec,
    RandomErasingSpec,
    RolssSpec,
    TransferSpec,
)
from tasks.errors import TrainingError
from tasks.training_spec import TrainingSpec
from tests.augment.test_plan import row_table, target

pytestmark = pytest.mark.usefixtures("ray")

SPEC = TrainingSpec(width=4, epochs=3, batch_size=16, precision="float32", learning_rate=1e-2)
ROWS = row_table(4, 12)
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS.num_rows, 16, 16, 3), dtype=np.uint8)
PLAN = make_plan(ROWS, [target(0)], 4, DcdSpec(), 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Workers have one thread each; with more, sums round in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_model_is_the_same_however_many_train_it(workers: int, tmp_path: Path) -> None:
    alone = fit_here(IMAGES, PLAN, 4, SPEC, 0)
    spec = SPEC.model_copy(update={"workers": workers})
    together = fit_distributed(IMAGES, PLAN, 4, spec, 0, storage=str(tmp_path))
    exact = workers == 1
    # Sums over two processes round in another order.
    tolerance = 0.0 if exact else 1e-3
    assert np.allclose(alone.meta.losses, together.meta.losses, atol=tolerance, rtol=0)
    for (name, a), b in zip(
        alone.module.state_dict().items(), together.module.state_dict().values(), strict=True
    ):
        assert torch.allclose(a.float(), b.float(), atol=10 * tolerance, rtol=0), name


@pytest.mark.parametrize(
    ("defense", "tolerance"),
    [
        (NegLsSpec(start=0.0, full=0.5), 1e-3),
        (RandomErasingSpec(), 1e-3),
        (RolssSpec(), 1e-3),
        (MidSpec(size=8), 0.2),  # draws by process: close, and not the same
        (TransferSpec(), 1e-2),  # rounding, grown over the steps
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_two_workers_train_a_defence_too(
    defense: AnyDefense, tolerance: float, tmp_path: Path
) -> None:
    if isinstance(defense, TransferSpec):
        taught = fit_here(IMAGES, PLAN, 4, SPEC, 7).save(tmp_path / "public")
        defense = defense.model_copy(update={"weights": taught})
    spec = SPEC.model_copy(update={"defense": defense})
    alone = fit_here(IMAGES, PLAN, 4, spec, 0)
    both = spec.model_copy(update={"workers": 2})
    together = fit_distributed(IMAGES, PLAN, 4, both, 0, storage=str(tmp_path / "train"))
    assert np.allclose(alone.meta.losses, together.meta.losses, atol=tolerance, rtol=tolerance)
    assert together.meta.training.defense == defense


def test_a_loss_that_is_not_finite_is_the_same_sentence(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"workers": 2, "learning_rate": 1e30, "epochs": 2})
    with pytest.raises(TrainingError, match="training loss is nan after epoch"):
        fit_distributed(IMAGES, PLAN, 4, spec, 0, storage=str(tmp_path))
