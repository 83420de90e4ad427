"""Training by Ray Train gives the model that training in this process gives."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from ray import get as ray_get
from ray import put as ray_put

from augment.plan import make_plan
from augment.spec import DcdSpec
from orchestrator.bundle import Bundle
from orchestrator.distributed import (
    decode_state,
    encode_state,
    fit_distributed,
    train_loop,
    training_key,
)
from orchestrator.publisher import start_publisher
from orchestrator.train_group import Member, StateKeeper, train_group
from orchestrator.train_states import keep_state
from orchestrator.trial import PublicWeights, fit_here, training_rows
from tasks.checkpoint import Checkpoint
from tasks.classifiers import build_model
from tasks.defenses.spec import (
    AnyDefense,
    LabelSmoothingSpec,
    MidSpec,
    NegLsSpec,
    RandomErasingSpec,
    RolssSpec,
    TransferSpec,
)
from tasks.draws import Draws
from tasks.errors import TrainingError
from tasks.training import TrainingState, fit
from tasks.training_spec import TrainingSpec
from tasks.workers import WorkerRange, Workers
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


@pytest.fixture(scope="module")
def publisher(ray: None) -> object:
    """The actor that keeps checkpoints."""
    return start_publisher()


@pytest.fixture
def keeper(publisher: object, tmp_path: Path) -> StateKeeper:
    """Where a training keeps its states; each epoch is worth one."""
    return StateKeeper(publisher, tmp_path / "training", every_s=0)


def assert_same(alone: Checkpoint, together: Checkpoint, tolerance: float) -> None:
    """Hold losses and weights of two trainings together."""
    assert np.allclose(alone.meta.losses, together.meta.losses, atol=tolerance, rtol=0)
    for (name, a), b in zip(
        alone.module.state_dict().items(), together.module.state_dict().values(), strict=True
    ):
        assert torch.allclose(a.float(), b.float(), atol=10 * tolerance, rtol=0), name


@pytest.mark.parametrize("workers", [1, 3, WorkerRange(least=1, most=2)], ids=str)
def test_the_model_is_the_same_however_many_train_it(workers: Workers, keeper: StateKeeper) -> None:
    """Three share a batch of 16 as 6, 5 and 5 rows; one gives the very same bits."""
    alone = fit_here(IMAGES, PLAN, 4, SPEC, 0)
    spec = SPEC.model_copy(update={"workers": workers})
    together = fit_distributed(IMAGES, PLAN, 4, spec, 0, keeper=keeper, cores_each=0.5)
    # Sums over several processes round in another order.
    assert_same(alone, together, 0.0 if workers == 1 else 1e-3)
    assert together.meta.training == spec


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_in_two_processes_as_in_one(
    precision: Literal["bfloat16", "float16"], keeper: StateKeeper
) -> None:
    spec = SPEC.model_copy(update={"precision": precision})
    alone = fit_here(IMAGES, PLAN, 4, spec, 0)
    together = fit_distributed(
        IMAGES, PLAN, 4, spec.model_copy(update={"workers": 2}), 0, keeper=keeper
    )
    # Three digits of bfloat16, and each process rounds its own part.
    assert np.allclose(alone.meta.losses, together.meta.losses, rtol=0.02)


def after(epochs: int, spec: TrainingSpec) -> list[TrainingState]:
    """Return the states of a training in this process after each of its first epochs."""
    states: list[TrainingState] = []

    class Stop(Exception):
        pass

    def on_epoch(state: TrainingState) -> None:
        states.append(copy.deepcopy(state))
        if state.epoch == epochs:
            raise Stop

    draws = Draws(0, ("train",))
    model = build_model(spec, 4, draws)
    with pytest.raises(Stop):
        fit(model, *training_rows(IMAGES, PLAN), spec, draws, on_epoch=on_epoch)
    return states


def test_two_go_on_from_what_one_left_and_pass_over_a_torn_checkpoint(keeper: StateKeeper) -> None:
    """A restart in the middle, with another number of processes, from the last whole state."""
    folder = keeper.folder / training_key(IMAGES, PLAN, 4, SPEC, 0)
    for state in after(2, SPEC):
        keep_state(folder, state.epoch, encode_state(state))
    torn = folder / "000000002" / "optimizer.safetensors"
    torn.write_bytes(torn.read_bytes()[:-7])
    spec = SPEC.model_copy(update={"workers": 2})
    together = fit_distributed(IMAGES, PLAN, 4, spec, 0, keeper=keeper)
    assert_same(fit_here(IMAGES, PLAN, 4, SPEC, 0), together, 1e-3)
    assert sorted(path.name for path in folder.iterdir()) == ["000000002", "000000003"]
    keeper.forget()
    assert not keeper.folder.exists()


TOLERANCES: dict[str, tuple[AnyDefense, float]] = {
    "neg-ls": (NegLsSpec(start=0.0, full=0.5), 1e-3),
    "label-smoothing": (LabelSmoothingSpec(), 1e-3),
    "random-erasing": (RandomErasingSpec(), 1e-3),
    "rolss": (RolssSpec(), 1e-3),
    "mid": (MidSpec(size=8), 0.2),  # draws by process: close, and not the same
    "transfer": (TransferSpec(), 1e-2),  # rounding, grown over the steps
}


def train_all(member: Member, config: dict[str, Any]) -> None:
    """Train one defence after the other in the same processes: starting them takes longest."""
    for name, spec in config["specs"].items():
        own = Member(replace(member.keeper, folder=member.keeper.folder / name))
        train_loop(own, config | {"spec": spec})
    member.offer(1, lambda: Bundle({}), last=True)


def test_two_workers_train_every_defence_too(keeper: StateKeeper) -> None:
    public = PublicWeights("public", fit_here(IMAGES, PLAN, 4, SPEC, 7).module.state_dict())
    specs = {
        name: SPEC.model_copy(update={"defense": defense})
        for name, (defense, _) in TOLERANCES.items()
    }
    config = {
        "specs": {name: spec.model_dump(mode="json") for name, spec in specs.items()},
        "images": ray_put(IMAGES),
        "recipe": ray_put(PLAN),
        "num_classes": 4,
        "seed": 0,
        "public": ray_put(public.state),
    }
    train_group(train_all, config, 2, keeper, 1, what="every defence")
    for name, (_, tolerance) in TOLERANCES.items():
        alone = fit_here(IMAGES, PLAN, 4, specs[name], 0, public=public)
        found = replace(keeper, folder=keeper.folder / name).newest()
        assert found is not None
        losses = decode_state(found[1]).losses
        assert np.allclose(alone.meta.losses, losses, atol=tolerance, rtol=tolerance), name


def test_every_defence_trains_with_two_workers_or_says_why_not() -> None:
    for kind in get_args(AnyDefense):
        name = kind.model_fields["name"].default
        if name in TOLERANCES or name == "none":
            assert not kind.one_process
        else:
            assert kind.one_process
            with pytest.raises(ValidationError, match=kind.one_process):
                TrainingSpec.model_validate({"defense": name, "workers": 2})


def test_a_loss_that_is_not_finite_is_the_same_sentence(keeper: StateKeeper) -> None:
    spec = SPEC.model_copy(update={"workers": 2, "learning_rate": 1e30, "epochs": 2})
    with pytest.raises(TrainingError, match="training loss is nan after epoch"):
        fit_distributed(IMAGES, PLAN, 4, spec, 0, keeper=keeper)


def tight(member: Member, config: dict[str, Any]) -> None:
    """Train; the second process has no memory for more than 4 rows, in the middle of a training."""
    from tasks import classifiers

    build = classifiers.build_model
    passes = 0

    def small(*args: Any) -> torch.nn.Module:
        model = build(*args)

        def allocate(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            nonlocal passes
            passes += 1
            if member.rank == 1 and passes > 3 and len(given[0]) > 4:
                torch.empty(1 << 50)

        model.register_forward_pre_hook(allocate)
        return model

    vars(classifiers)["build_model"] = small  # `train_loop` looks it up when it begins
    try:
        train_loop(member, config)
    finally:
        vars(classifiers)["build_model"] = build


def test_a_process_that_runs_out_of_memory_halves_the_batch_of_all(
    publisher: Any, tmp_path: Path
) -> None:
    """The model is the one of a group that knew from the beginning how many rows fit."""
    config = {
        "spec": SPEC.model_dump(mode="json"),
        "images": ray_put(IMAGES),
        "recipe": ray_put(PLAN),
        "num_classes": 4,
        "seed": 0,
    }
    told, tried = (StateKeeper(publisher, tmp_path / name) for name in ("told", "tried"))
    ray_get(publisher.note_rows.remote(told.folder, 8))
    found = []
    for keeper in (told, tried):
        last, _ = train_group(tight, config, 2, keeper, SPEC.epochs, what="the classifier")
        assert keeper.rows_at_once() == 8
        found.append(decode_state(last))
    assert found[0].losses == found[1].losses
    for name, value in found[0].model.items():
        assert torch.equal(value, found[1].model[name]), name
