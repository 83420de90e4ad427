"""A batch that does not fit into memory is halved until it does; the step stays the same."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.classifiers import build_model
from tasks.defenses.networks import replace_batchnorm
from tasks.draws import Draws
from tasks.errors import MemoryEndedError, TrainingError
from tasks.memory import halving, is_out_of_memory
from tasks.training import fit, parts_of
from tasks.training_spec import TrainingSpec
from tests.tasks.test_training import coloured

SPEC = TrainingSpec(width=4, epochs=3, batch_size=16, learning_rate=1e-2, precision="float32")
TOO_LARGE = TrainingError("too large")


def test_every_way_of_saying_it_is_understood() -> None:
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 50)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 50)
    for error in (
        of_numpy.value,
        of_torch.value,
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("could not create a primitive"),  # as oneDNN said it with too little
    ):
        assert is_out_of_memory(error)
    for other in (RuntimeError("shapes do not match"), TrainingError("out of memory"), OSError(12)):
        assert not is_out_of_memory(other)


def test_it_halves_until_it_fits_and_no_further() -> None:
    tried = []

    def work(rows: int) -> str:
        tried.append(rows)
        if rows > 20:
            torch.empty(1 << 50)
        return "done"

    assert halving(work, 128, 2, TOO_LARGE) == ("done", 16)
    assert tried == [128, 64, 32, 16]
    with pytest.raises(TrainingError, match="too large"):
        halving(work, 128, 32, TOO_LARGE)
    with pytest.raises(ZeroDivisionError):
        halving(lambda rows: rows // 0, 8, 1, TOO_LARGE)


@pytest.mark.parametrize("own", [7, 8, 9, 16])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("at_once", [2, 5, 16, 100])
def test_the_parts_of_a_batch_are_as_many_in_every_process(
    own: int, world: int, at_once: int
) -> None:
    rows = own * world - (world - 1)
    shares = [len(range(rank, rows, world)) for rank in range(world)]
    parts = [parts_of(share, rows, world, at_once) for share in shares]
    assert len({len(part) for part in parts}) == 1
    for share, part in zip(shares, parts, strict=True):
        assert [row for one in part for row in range(share)[one]] == list(range(share))
        assert all(one.stop - one.start >= 1 for one in part)
        assert sum(one.stop - one.start for one in part) == share


def trained(at_once: int | None, *, batchnorm: bool) -> dict[str, Tensor]:
    draws = Draws(0)
    model = build_model(SPEC, 3, draws)
    if not batchnorm:
        replace_batchnorm(model)
    fit(model, *coloured(), SPEC, draws, at_once=at_once)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_step_in_parts_is_the_same_step_where_no_layer_looks_at_the_batch() -> None:
    whole, parts = (trained(rows, batchnorm=False) for rows in (None, 4))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-4) for name in whole)
    whole, parts = (trained(rows, batchnorm=True) for rows in (None, 4))
    assert not all(torch.allclose(whole[name], parts[name], atol=1e-4) for name in whole)


def test_a_training_that_had_to_halve_is_one_that_began_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The allocator's own error, in the middle of the second epoch."""
    halved: list[int] = []
    calls = 0

    def short(views: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if len(views) > 4 and calls > 4:
            torch.empty(1 << 50)
        return (views - 0.5) / 0.5

    draws = Draws(0)
    model = build_model(SPEC, 3, draws)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.training.normalise", short)
        losses = fit(model, *coloured(), SPEC, draws, on_halved=halved.append)
    assert halved == [8, 4]
    assert len(losses) == SPEC.epochs
    expected = trained(4, batchnorm=True)
    assert all(torch.equal(expected[name], value) for name, value in model.state_dict().items())


def test_one_that_never_fits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.normalise", lambda views: torch.empty(1 << 50))
    with pytest.raises(MemoryEndedError, match="does not fit into memory, not even with 2 rows"):
        fit(build_model(SPEC, 3, Draws(0)), *coloured(), SPEC, Draws(0))


REAL = """
import json, resource, torch
from tasks.classifiers import build_model
from tasks.draws import Draws
from tasks.training import fit
from tasks.training_spec import TrainingSpec
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False  # where its own malloc fails it may crash the process
spec = TrainingSpec(width=16, epochs=1, batch_size=256, learning_rate=1e-3, precision="float32",
                    augment=False)
images, labels = torch.rand(256, 3, 48, 48), torch.arange(256) % 4
model = build_model(spec, 4, Draws(0))
small = TrainingSpec.model_validate(spec.model_dump() | {"batch_size": 8})
fit(model, images[:8], labels[:8], small, Draws(0))  # what loads at the first step is loaded
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
halved = []
losses = fit(model, images, labels, spec, Draws(0), on_halved=halved.append)
print(json.dumps([halved, losses]))
"""


def test_a_process_with_too_little_memory_trains_in_parts() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    halved, losses = json.loads(ended.stdout)
    assert halved
    assert halved == [256 >> (i + 1) for i in range(len(halved))]
    assert halved[-1] >= 16
    assert len(losses) == 1
