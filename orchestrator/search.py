"""Which setting is tried next: a function of the seed and of earlier trials, not of time.

Trial i is suggested from the trials up to i - lookahead. So a sweep gives the same trials whichever
ends first, however many run at once, and after a kill and a resume.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from augment.spec import DcdSpec
from orchestrator.comparison_spec import ALONE, compared_points
from orchestrator.records import TrialRecord
from orchestrator.spec import Between, ExperimentSpec, SpaceSpec, SweepSpec
from tasks.draws import Draws
from tasks.errors import SpecError

STARTUP = 8
"""Trials spread evenly over the space before the search learns from results."""


def planned_trials(spec: ExperimentSpec) -> int:
    """Return how many trials a sweep has beside the control.

    Raises:
        SpecError: a grid has a range in it, or gives a setting that is not valid.
    """
    sweep = spec.sweep
    if sweep.search == "defenses":
        return len(compared_points(spec)) - 1
    if sweep.search == "ablation":
        return len(ablation(spec.dcd))
    return len(grid(sweep.space)) if sweep.search == "grid" else sweep.trials


def ablation(dcd: DcdSpec) -> list[DcdSpec]:
    """Return a recipe, the recipe without each of its steps, and the part for one person alone."""
    without = [
        dcd.model_copy(update={"steps": tuple(s for s in dcd.steps if s != left_out)})
        for left_out in dcd.steps
    ]
    return [dcd, *without, dcd.model_copy(update=ALONE)]


def grid(space: SpaceSpec) -> list[dict[str, float]]:
    """Return all combinations of a space of lists.

    Raises:
        SpecError: a lever is a range.
    """
    levers = {name: getattr(space, name) for name in type(space).model_fields}
    for name, values in levers.items():
        if isinstance(values, Between):
            raise SpecError(
                f"sweep.search=grid needs lists, but sweep.space.{name} is a range; write "
                f"[{values.low:g}, {values.high:g}], or use sweep.search=optuna"
            )
    return [
        dict(zip(levers, combination, strict=True))
        for combination in itertools.product(*levers.values())
    ]


def suggest(
    index: int, sweep: SweepSpec, dcd: DcdSpec, seed: int, records: Sequence[TrialRecord]
) -> DcdSpec:
    """Return the recipe of DCD trial `index` (1, 2, ...).

    The first is the experiment's own recipe, the next ones are spread evenly (Sobol), later ones
    are Optuna's multi-objective TPE on clean accuracy (up) and the worst attack (down).

    Args:
        index: of the trial; 0 is the control and is not suggested.
        sweep: search and space.
        dcd: the experiment's own recipe.
        seed: of the experiment.
        records: finished trials; only those up to index - lookahead count.
    """
    if sweep.search == "ablation":
        return ablation(dcd)[index - 1]
    if sweep.search == "grid":
        return dcd.model_copy(update=grid(sweep.space)[index - 1])
    if index == 1:
        return dcd.model_copy(update=_inside(sweep.space, dcd))
    if index <= STARTUP:
        return dcd.model_copy(update=_spread(index - 2, sweep.space, seed))
    known = [
        record
        for record in records
        if record.defense == "dcd" and record.index <= index - sweep.lookahead
    ]
    return dcd.model_copy(update=_learned(index, sweep.space, seed, known))


def known_enough(index: int, sweep: SweepSpec, finished: set[int]) -> bool:
    """Say whether trial `index` can be suggested: all trials that it depends on have ended."""
    if sweep.search != "optuna" or index <= STARTUP:
        return True
    return all(i in finished for i in range(1, index - sweep.lookahead + 1))


def _inside(space: SpaceSpec, dcd: DcdSpec) -> dict[str, float]:
    """Return the experiment's own levers, moved to the nearest value of the space."""
    found = {}
    for name in type(space).model_fields:
        values, own = getattr(space, name), float(getattr(dcd, name))
        if isinstance(values, Between):
            found[name] = min(max(own, values.low), values.high)
        else:
            found[name] = min(values, key=lambda value: (abs(value - own), value))
    return found


def _spread(position: int, space: SpaceSpec, seed: int) -> dict[str, float]:
    from scipy.stats import qmc

    names = list(type(space).model_fields)
    sobol = qmc.Sobol(len(names), scramble=True, rng=Draws(seed, ("sobol",)).key % 2**32)
    unit = sobol.random_base2(math.ceil(math.log2(STARTUP)))[position]
    found = {}
    for name, u in zip(names, unit.tolist(), strict=True):
        values = getattr(space, name)
        if not isinstance(values, Between):
            found[name] = values[int(u * len(values))]
        elif values.log:
            found[name] = _rounded(values.low * (values.high / values.low) ** u, values)
        else:
            found[name] = _rounded(values.low + (values.high - values.low) * u, values)
    return found


def _learned(
    index: int, space: SpaceSpec, seed: int, known: Sequence[TrialRecord]
) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=Draws(seed, ("tpe", index)).key % 2**32, n_startup_trials=0
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    distributions = {name: _distribution(space, name) for name in type(space).model_fields}
    states = optuna.trial.TrialState
    for record in sorted(known, key=lambda record: record.index):
        worst, accuracy = record.worst_attack, record.clean_accuracy
        failed = record.status == "failed" or worst is None or accuracy is None
        study.add_trial(
            optuna.trial.create_trial(
                params={name: record.settings[name] for name in distributions},
                distributions=distributions,
                state=states.FAIL if failed else states.COMPLETE,
                values=None
                if worst is None or accuracy is None
                else [accuracy.overall.value, worst.value],
            )
        )
    trial = study.ask(distributions)
    return {name: _rounded(trial.params[name], getattr(space, name)) for name in distributions}


def _rounded(value: float, values: Between | tuple[float, ...]) -> float:
    """Return four digits of a value, so that people can type it, still inside its range."""
    if not isinstance(values, Between):
        return value
    return min(max(float(f"{value:.4g}"), values.low), values.high)


def _distribution(space: SpaceSpec, name: str) -> object:
    import optuna

    values = getattr(space, name)
    if isinstance(values, Between):
        return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
    return optuna.distributions.CategoricalDistribution(values)
