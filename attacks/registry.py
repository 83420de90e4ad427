"""All attacks by name, in the order of the help."""

from __future__ import annotations

from typing import Any

from attacks.adaptive import Adaptive
from attacks.attack import Attack
from attacks.brep_mi import BrepMi
from attacks.gmi import GMI
from attacks.if_gmi import IfGmi
from attacks.knowledge import Knowledge
from attacks.mirror_b import MirrorB
from attacks.mirror_w import MirrorW
from attacks.ppa import PPA
from attacks.spec import AdaptiveSpec, AttackSpec

ATTACKS: dict[str, type[Any]] = {
    "ppa": PPA,
    "mirror-w": MirrorW,
    "mirror-b": MirrorB,
    "gmi": GMI,
    "if-gmi": IfGmi,
    "brep-mi": BrepMi,
    "adaptive": Adaptive,
}


def make_attack(spec: AttackSpec, knowledge: Knowledge | None = None) -> Attack:
    """Return the attack that a spec describes; `knowledge` serves adaptive ones."""
    attack: Attack
    if isinstance(spec, AdaptiveSpec):
        attack = Adaptive(spec, knowledge)
    else:
        attack = ATTACKS[spec.name](spec)
    return attack
