"""The attacker who knows of DCD: a set of adaptive attacks on the control and the chosen trial.

It is run when all trials have ended, and always reported beside the plain attacks. Every member has
the same budget; the best member is what such an attacker could have reached by the right guess.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter, ValidationError

from orchestrator.bundle import Bundle, pack, unpacked
from orchestrator.images_stage import Progress
from orchestrator.knowledge import prepare_knowledge
from orchestrator.placement import task_options
from orchestrator.records import AttackRecord, Rate, TrialRecord
from orchestrator.selection import Selection
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, write_atomic
from orchestrator.summary import summarise
from orchestrator.trial import World
from tasks.errors import AttackError, StoreError
from tasks.spec import Spec, fingerprint

if TYPE_CHECKING:
    from attacks.knowledge import Knowledge
    from attacks.prior import Prior
    from attacks.spec import AttackSpec

FILE = "adaptive.json"


class AdaptiveTrial(Spec):
    """What a set of adaptive attacks reached against one trial's classifier."""

    trial_id: str
    index: int
    key: str = Field(description="Hash of the trial and of the set's settings.")
    attacks: tuple[AttackRecord, ...]
    failed: dict[str, str] = Field(description="Attacks that broke, and what they said.")

    @property
    def best(self) -> AttackRecord | None:
        """The member with the highest accuracy@1, the first of equals."""
        return max(self.attacks, key=lambda a: a.accuracy_at_1.value, default=None)

    @property
    def targets_hit(self) -> Rate | None:
        """Share of targets that any member hit at least once; None where none was run."""
        return targets_hit(self.attacks)


def targets_hit(attacks: Sequence[AttackRecord]) -> Rate | None:
    """Return the share of targets with a success of any of the attacks; None without attacks."""
    tried = {score.pseudonym for attack in attacks for score in attack.per_target}
    hit = {
        score.pseudonym
        for attack in attacks
        for score in attack.per_target
        if score.accuracy_at_1.successes
    }
    return Rate.of(len(hit), len(tried)) if tried else None


def read_adaptive(run: Path) -> tuple[AdaptiveTrial, ...]:
    """Return what was measured, the control first; nothing where nothing was.

    Raises:
        StoreError: the file cannot be read.
    """
    path = run / FILE
    if not path.is_file():
        return ()
    try:
        return TypeAdapter(tuple[AdaptiveTrial, ...]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise StoreError(
            f"{path} cannot be read: it was damaged, or written by another version; delete it, and "
            "resume the sweep to write it again"
        ) from error


def subjects(spec: ExperimentSpec, records: Sequence[TrialRecord], run: Path) -> list[TrialRecord]:
    """Return the trials that are attacked: the control, and the one that the report is about."""
    if not spec.adaptive_attacks:
        return []
    found = summarise(spec, records, str(run))
    chosen = (found.control, found.focus)
    return sorted((r for r in records if r.trial_id in chosen), key=lambda r: r.index)


def still_to_measure(
    spec: ExperimentSpec, records: Sequence[TrialRecord], run: Path
) -> list[TrialRecord]:
    """Return the subjects that this set of attacks was not yet run against."""
    kept = {trial.key for trial in read_adaptive(run)}
    return [r for r in subjects(spec, records, run) if _key(spec, r) not in kept]


def measure_adaptive(
    spec: ExperimentSpec,
    store: Store,
    selection: Selection,
    run: Path,
    records: Sequence[TrialRecord],
    shared: dict[str, Any],
    progress: Progress,
) -> None:
    """Attack the subjects that have no result, one Ray task an attack, and keep what is found.

    Args:
        spec: the experiment.
        store: keeps what the attacker learns of attributes.
        selection: who is protected, and the public images.
        run: folder of the run.
        records: of all trials.
        shared: references to `world`, `prior` and `judges`.
        progress: called as attacks end.
    """
    import ray

    waiting = still_to_measure(spec, records, run)
    if not waiting:
        return
    knowledge = prepare_knowledge(spec, spec.adaptive_attacks, store, selection, progress)
    attacks = [a for a in spec.adaptive_attacks if can_run(a, knowledge)]
    task = ray.remote(**task_options(spec.compute.gpus_per_trial), max_retries=2)(_attack_task)
    given = (shared["world"], ray.put(shared["prior"]), ray.put(knowledge), shared["judges"])
    weights = {
        record.trial_id: ray.put(pack(run / "trials" / record.trial_id / "checkpoint"))
        for record in waiting
    }
    tasks = {
        (record.trial_id, attack.label): task.remote(attack, weights[record.trial_id], spec, *given)
        for record in waiting
        for attack in attacks
    }
    done, left = 0, list(tasks.values())
    while left:
        progress("adaptive attacks", done, len(tasks))
        _, left = ray.wait(left, num_returns=1)
        done = len(tasks) - len(left)
    progress("adaptive attacks", done, len(tasks))
    measured = [
        _gather(spec, record, {a.label: ray.get(tasks[record.trial_id, a.label]) for a in attacks})
        for record in waiting
    ]
    wanted = {_key(spec, record) for record in subjects(spec, records, run)}
    kept = [trial for trial in read_adaptive(run) if trial.key in wanted]
    found = sorted([*kept, *measured], key=lambda trial: trial.index)
    text = json.dumps([trial.model_dump(mode="json") for trial in found], indent=2)
    write_atomic(run / FILE, text + "\n")


def sentence(trials: Sequence[AdaptiveTrial], records: Sequence[TrialRecord]) -> str | None:
    """Return in a sentence what an attacker who knows of DCD reaches; None where it is unknown."""
    defended = next((t for t in trials if t.index > 0 and t.best is not None), None)
    if defended is None or defended.best is None:
        return None
    control = next((t for t in trials if t.index == 0 and t.best is not None), None)
    plain = next((r.worst_attack for r in records if r.trial_id == defended.trial_id), None)
    best = defended.best.accuracy_at_1
    text = (
        f"An attacker who knows of DCD, by the best of {len(defended.attacks)} strategies "
        f"({defended.best.name.removeprefix('adaptive-')}), reaches {_percent(best)} on trial "
        f"{defended.index}"
    )
    beside = []
    if plain is not None:
        beside.append(f"the best plain attack {_percent(plain)}")
    if control is not None and control.best is not None:
        undefended = control.best.accuracy_at_1.value
        beside.append(f"without a defence the best strategy reaches {100 * undefended:.1f} %")
    return f"{text} ({'; '.join(beside)})." if beside else f"{text}."


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _key(spec: ExperimentSpec, record: TrialRecord) -> str:
    return fingerprint([record.trial_id, list(spec.adaptive_attacks)])


def can_run(attack: AttackSpec, knowledge: Knowledge | None) -> bool:
    """Say whether what the attack has to know is known: data without attributes tells nothing."""
    from attacks.spec import AdaptiveSpec

    asks = isinstance(attack, AdaptiveSpec) and attack.strategy == "attribute"
    return knowledge is not None or not asks


def _gather(
    spec: ExperimentSpec, record: TrialRecord, found: dict[str, AttackRecord | str]
) -> AdaptiveTrial:
    return AdaptiveTrial(
        trial_id=record.trial_id,
        index=record.index,
        key=_key(spec, record),
        attacks=tuple(one for one in found.values() if isinstance(one, AttackRecord)),
        failed={name: one for name, one in found.items() if isinstance(one, str)},
    )


def _attack_task(
    attack: AttackSpec,
    checkpoint: Bundle,
    spec: ExperimentSpec,
    world: World,
    prior: Prior,
    knowledge: Knowledge | None,
    judges: dict[str, Bundle],
) -> AttackRecord | str:
    """Attack one classifier and judge, in a Ray worker; a broken attack gives its sentence."""
    import torch

    from orchestrator.attacking import attack_all
    from orchestrator.judges import load_panel
    from orchestrator.judging import judge_all
    from tasks.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    with unpacked(checkpoint) as folder:
        classifier = load_checkpoint(folder).classifier()
    world = replace(world, knowledge=knowledge)
    try:
        results = attack_all(classifier, prior, world, (attack,))
    except AttackError as error:
        return str(error)
    records, _ = judge_all(results, load_panel(spec, judges), world, (attack,))
    return records[0]
