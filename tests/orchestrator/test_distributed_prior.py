"""A GAN trained by Ray Train is the one that this process trains; its checkpoints go round."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.prior_gan_training import GanState, train_gan
from attacks.spec import GanSpec
from orchestrator.distributed_prior import decode_state, encode_state, fit_gan
from tasks.errors import TrainingError

SPEC = GanSpec(steps=4, latent_size=4, width=4, batch_size=8, critic_steps=2)
IMAGES = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Workers have one thread each; with more, sums round in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("ray")
def test_two_processes_train_the_gan_that_one_trains(tmp_path: Path) -> None:
    alone = fit_gan(IMAGES, SPEC, 0, storage=tmp_path / "one")
    spec = SPEC.model_copy(update={"workers": 2})
    together = fit_gan(IMAGES, spec, 0, storage=tmp_path / "two")
    z = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    # Sums over two processes round in another order, and Adam's first steps take a sign of them.
    torch.testing.assert_close(together(z), alone(z), rtol=0, atol=0.02)
    assert not (tmp_path / "two").exists(), "checkpoints of a finished training are removed"


@pytest.mark.usefixtures("ray")
def test_a_loss_that_is_not_finite_is_the_same_sentence(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"workers": 2, "learning_rate": 1e30})
    with pytest.raises(TrainingError, match="the GAN prior's loss is"):
        fit_gan(IMAGES, spec, 0, storage=tmp_path)


def test_a_state_that_is_written_and_read_goes_on_exactly() -> None:
    spec = SPEC.model_copy(update={"steps": 22})
    states: list[GanState] = []
    whole = train_gan(IMAGES, spec, 0, on_state=lambda s: states.append(copy.deepcopy(s)))
    read = decode_state(encode_state(states[0]))
    assert (read.step, read.distances) == (20, states[0].distances)
    resumed = train_gan(IMAGES, spec, 0, start=read)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
