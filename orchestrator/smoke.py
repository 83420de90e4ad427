"""The same experiment, tiny: every stage is real, and nothing is to be read off the result."""

from __future__ import annotations

from typing import Any

from orchestrator.spec import ExperimentSpec

Caps = dict[str, float]

DATA: dict[str, Caps] = {
    "builtin": {
        "train_images": 12,
        "test_images": 4,
        "surrogate_images": 12,
        "public_identities": 60,
        "public_images": 4,
    },
    "folder": {"max_images_per_class": 20},
}
IDENTITIES: Caps = {"identities": 8, "surrogate_identities": 12}
TARGETS = 2
SECTIONS: dict[str, Caps] = {
    "training": {"width": 8, "epochs": 3},
    "evaluation": {"width": 8, "epochs": 3},
    "prior": {"steps": 30},
    "screening": {"blocks": 2, "pool": 200},
    "sweep": {"trials": 2},
}
GAN: Caps = {"steps": 4, "width": 8}
ATTACKS: dict[str, Caps] = {
    "ppa": {"pool": 200, "candidates": 4, "steps": 5, "keep": 2, "selection_rounds": 2},
    "mirror-w": {"pool": 200, "starts": 2, "steps": 5},
    "mirror-b": {"pool": 200, "restarts": 2, "population": 8, "generations": 3},
    "gmi": {"restarts": 2, "steps": 5, "student_steps": 5, "views": 2},
    "brep-mi": {"pool": 200, "restarts": 2, "points": 8, "steps": 3},
}
ATTACKS["if-gmi"] = ATTACKS["ppa"] | {"layer_steps": 2, "layers": 1}
ATTACKS["adaptive"] = ATTACKS["ppa"] | {"probes": 2}
for _gradient in ("ppa", "mirror-w", "if-gmi", "adaptive"):
    ATTACKS[_gradient] |= {"student_steps": 5, "views": 2}


def smoke(spec: ExperimentSpec) -> ExperimentSpec:
    """Return a variant that runs in under a minute on two cores; no setting grows."""
    values = spec.model_dump()
    _cap(values["data"], DATA[spec.data.kind])
    for name, caps in SECTIONS.items():
        _cap(values[name], caps)
    _cap(values["prior"]["gan"], GAN)
    _cap(values["evaluation"]["second"], SECTIONS["evaluation"])
    values["adaptive_attacks"] = values["adaptive_attacks"][:2]
    for attack in (*values["attacks"], *values["adaptive_attacks"]):
        _cap(attack, ATTACKS[attack["name"]])
    targets, surrogates = spec.protect.targets, spec.protect.surrogates
    few = min(targets, TARGETS) if isinstance(targets, int) else targets[:TARGETS]
    values["protect"]["targets"] = few
    named = (
        not isinstance(targets, int)
        or not isinstance(surrogates, str)
        or surrogates == "listed"
        or spec.protect.surrogate_pool == "held-out"
    )
    if not named and spec.data.kind == "builtin":
        _cap(values["data"], IDENTITIES)  # where nobody is named, nobody can go missing
    space = values["sweep"]["space"]
    for lever, choices in space.items():
        if isinstance(choices, tuple):
            space[lever] = choices[: 2 if lever == "mislabel_fraction" else 1]
    values["sweep"]["strengths"] = 1
    for row in values["sweep"]["rows"] or ():
        if row["strengths"] is not None:
            row["strengths"] = row["strengths"][:1]
    values["name"] = f"{spec.name[:58]}-smoke"
    return ExperimentSpec.model_validate(values)


def _cap(section: dict[str, Any], caps: Caps) -> None:
    for key, cap in caps.items():
        section[key] = cap if section[key] is None else min(section[key], cap)
