"""What one process of a calibration measures: a few real batches of every stage of a trial."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from orchestrator.adaptive import can_run
from orchestrator.attacking import Reconstructed, attack_group
from orchestrator.bundle import pack, scratch
from orchestrator.calibration import FIRST, START
from orchestrator.judges import FIRST_SEED, load_panel
from orchestrator.spec import ExperimentSpec
from orchestrator.trial import PublicWeights, World, accuracy_of, fit_here, starts_public
from orchestrator.workload import (
    Setting,
    Unit,
    attack_key,
    rest_key,
    settings_of,
    train_key,
)
from orchestrator.world_stage import evaluation_plan
from tasks.draws import Draws
from tasks.errors import AttackError

if TYPE_CHECKING:
    from attacks.knowledge import Knowledge
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from tasks.checkpoint import Checkpoint
    from tasks.training_spec import TrainingSpec

BATCHES, EPOCHS = 6, 3
"""Of a training; the first epoch warms up and is not counted."""

SHARE, WARM_SHARE = 0.1, 0.02
"""Of an attack's budget that is run, and of what comes before to warm up."""

BUDGET = ("pool", "steps", "selection_rounds", "generations", "student_steps", "layer_steps")
LEAST_POOL = 256


@dataclass
class Measured:
    """What one process found: samples of seconds a unit, by key."""

    speeds: dict[str, tuple[str, Unit]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    device: str = ""

    def add(self, key: str, stage: str, unit: Unit, seconds: float, units: float = 1) -> None:
        """Take a measurement of so many units."""
        self.speeds[key] = (stage, unit)
        self.seconds.setdefault(key, []).append(seconds / units)


def measure_task(
    spec: ExperimentSpec,
    world: World,
    prior: Prior,
    knowledge: Knowledge | None,
    repeats: int,
    sent: float,
) -> Measured:
    """Measure everything, in a Ray worker."""
    import torch

    from tasks.device import device_name

    torch.set_num_threads(1)
    found = Measured(device=device_name())
    waited = max(0.0, time.time() - sent)
    started = time.monotonic()
    # What a process does once only (kernels are chosen, modules imported) is part of its start.
    first = settings_of(spec)[0]
    for _ in range(2):
        began = time.monotonic()
        _train(spec, world, first, "", Measured())
    again = time.monotonic() - began
    once = max(0.0, began - started - again)
    found.add(START, "start", "trial", waited + once)
    found.add(FIRST, "start", "trial", once)
    for number in range(repeats):
        measure(spec, world, replace(world, knowledge=knowledge), prior, found, number)
    return found


def measure(
    spec: ExperimentSpec, world: World, knowing: World, prior: Prior, found: Measured, number: int
) -> None:
    """Measure every stage once.

    Args:
        spec: the experiment.
        world: shared data.
        knowing: the same, for an attacker who knows of DCD.
        prior: the attacker's generator.
        found: takes the samples.
        number: which time this is; the first time, attacks are warmed up.
    """
    seen: set[str] = set()
    settings = settings_of(spec)
    panel = functools.cache(lambda: _panel(spec, world, found, warm=number == 0))
    for setting in settings:
        key = train_key(spec, setting.training)
        checkpoint: Checkpoint | None = None
        wanted = [(world, attack) for attack in spec.attacks]
        if setting in (settings[0], settings[-1]):
            wanted += [
                (knowing, one) for one in spec.adaptive_attacks if can_run(one, knowing.knowledge)
            ]
        keys = {attack_key(spec, attack, setting): (of, attack) for of, attack in wanted}
        if key in seen and not set(keys) - seen and rest_key(spec, setting) in seen:
            continue
        with _clean(found, key, "training"):
            checkpoint = _train(spec, world, setting, key, Measured() if key in seen else found)
        if checkpoint is None:
            continue
        results: dict[str, Reconstructed] = {}
        for one, (of, attack) in keys.items():
            if one in seen:
                continue
            with _clean(found, one, f"attack {attack.label}"):
                results[attack.label] = _attack(
                    attack, checkpoint, prior, of, one, found, warm=number == 0
                )
        if rest_key(spec, setting) not in seen:
            with _clean(found, rest_key(spec, setting), "rest"):
                for into in [Measured(), found] if number == 0 else [found]:
                    _rest(spec, world, setting, checkpoint, panel(), results, into)
        seen |= {key, rest_key(spec, setting), *keys}


@contextmanager
def _clean(found: Measured, key: str, stage: str) -> Iterator[None]:
    """Note what cannot be measured, and go on: the plan says that it is not known."""
    try:
        yield
    except AttackError as error:
        found.broken[key] = f"{stage}: {error}"


def _train(
    spec: ExperimentSpec,
    world: World,
    setting: Setting,
    key: str,
    found: Measured,
) -> Checkpoint:
    """Train for some batches with the setting's defence, as a trial does."""
    from augment.plan import make_plan
    from augment.spec import DcdSpec
    from orchestrator.serving import fit_served
    from tasks.classifiers import build_model
    from tasks.defenses.spec import NoDefense

    targets = () if setting.dcd is None else world.targets
    dcd = setting.dcd or DcdSpec()
    recipe = make_plan(world.rows, targets, world.num_classes, dcd, world.seed)
    few = _some(recipe, BATCHES * setting.training.batch_size, spec.seed)
    # What transfer starts from costs the same, learnt or not.
    public = None
    if starts_public(setting.training):
        plain = setting.training.model_copy(update={"defense": NoDefense()})
        model = build_model(plain, world.num_classes, Draws(world.seed))
        public = PublicWeights("calibration", model.state_dict())
    with _epochs(found, key, "training", few, setting.training, public) as fit:
        short = setting.training.with_passes(EPOCHS).model_copy(update={"workers": 1})
        return fit_served(
            fit, world.images, few, world.num_classes, short, world.seed, setting.serving
        )


@contextmanager
def _epochs(
    found: Measured,
    key: str,
    stage: str,
    recipe: pa.Table,
    training: TrainingSpec,
    public: PublicWeights | None = None,
) -> Iterator[Callable[..., Checkpoint]]:
    """Give a `fit` that notes when epochs end; afterwards the seconds of a row are known.

    What is done once, before the first epoch, is spread over the epochs of the real training.
    """
    marks = [time.monotonic()]

    def note(epoch: int) -> None:
        marks.append(time.monotonic())

    yield functools.partial(fit_here, on_epoch=note, public=public)
    each = (marks[-1] - marks[1]) / (EPOCHS - 1)
    once = max(0.0, marks[1] - marks[0] - each)
    found.add(key, stage, "row", each + once / training.passes, recipe.num_rows)


def _some(recipe: pa.Table, count: int, seed: int) -> pa.Table:
    """Return some rows of a plan, drawn by their number."""
    rank = Draws(seed, ("calibration",)).bits(np.arange(recipe.num_rows))[:, 0]
    return recipe.take(pa.array(np.sort(np.argsort(rank, kind="stable")[:count])))


def shortened(attack: AttackSpec, share: float) -> AttackSpec:
    """Return an attack with a share of its budget, the batches as large as before."""
    values = attack.model_dump()
    for name in BUDGET:
        if name in values:
            least = LEAST_POOL if name == "pool" else 1
            values[name] = min(values[name], max(least, round(share * values[name])))
    if values.get("rungs"):
        rungs = {max(1, round(share * rung)) for rung in values["rungs"]}
        values["rungs"] = tuple(sorted(r for r in rungs if r < values["steps"]))
    return type(attack).model_validate(values)


def _attack(
    attack: AttackSpec,
    checkpoint: Checkpoint,
    prior: Prior,
    world: World,
    key: str,
    found: Measured,
    *,
    warm: bool,
) -> Reconstructed:
    """Run a part of an attack against the first group of targets."""
    from orchestrator.attacking import target_groups
    from orchestrator.workload import attack_images

    group = target_groups(len(world.attacked))[0]
    targets = len(world.attacked[group])
    classifier = checkpoint.classifier()
    if warm:
        attack_group(shortened(attack, WARM_SHARE), classifier, prior, world, group)
    part = shortened(attack, SHARE)
    started = time.perf_counter()
    result = attack_group(part, classifier, prior, world, group)
    seconds = time.perf_counter() - started
    found.add(key, f"attack {attack.label}", "image", seconds, attack_images(part, targets))
    return result


def _panel(spec: ExperimentSpec, world: World, found: Measured, *, warm: bool) -> Any:
    """Train the judges for some batches each, and return them as a panel."""
    classes = world.num_classes + len({who for t in world.targets for who in t.lenders})
    recipe, roles = evaluation_plan(world), ["first"]
    wanted = [spec.evaluation.judge()]
    if spec.evaluation.second.enabled:
        roles, wanted = [*roles, "second"], [*wanted, spec.evaluation.second_judge()]
    if spec.evaluation.paper_convention:
        roles, wanted = [*roles, "closed"], [*wanted, spec.evaluation.judge()]
    bundles = {}
    for role, training in zip(roles, wanted, strict=True):
        few = _some(recipe, BATCHES * training.batch_size, spec.seed)
        short = training.model_copy(update={"epochs": EPOCHS, "workers": 1})
        for into in [Measured(), found] if warm else [found]:
            with _epochs(into, train_key(spec, training), "judges", few, training) as fit:
                judge = fit(world.images, few, classes, short, world.seed + FIRST_SEED)
        with scratch() as folder:
            judge.save(folder)
            bundles[role] = pack(folder)
    return load_panel(spec, bundles)


def _rest(
    spec: ExperimentSpec,
    world: World,
    setting: Setting,
    checkpoint: Checkpoint,
    panel: Any,
    results: dict[str, Reconstructed],
    found: Measured,
) -> None:
    """Do in full what a trial does beside training and attacks."""
    from augment.plan import make_plan
    from augment.spec import DcdSpec
    from orchestrator.judging import judge_all
    from orchestrator.utility import people_of, utility_of

    # More targets than one group has: what was found for some stands for all.
    full = {
        attack.label: replace(
            one, images=np.resize(one.images, (len(world.attacked), *one.images.shape[1:]))
        )
        for attack in spec.attacks
        if (one := results.get(attack.label)) is not None
    }
    started = time.perf_counter()
    targets = () if setting.dcd is None else world.targets
    dcd = setting.dcd or DcdSpec()
    recipe = make_plan(world.rows, targets, world.num_classes, dcd, world.seed)
    classifier = checkpoint.classifier()
    accuracy_of(classifier, world)
    utility_of(classifier, world, recipe)
    people_of(classifier, world, recipe)
    judge_all(full, panel, world, [a for a in spec.attacks if a.label in full])
    found.add(rest_key(spec, setting), "rest", "trial", time.perf_counter() - started)
