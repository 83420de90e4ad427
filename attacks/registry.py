"""All attacks by name, in the order of the help."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.mirror_b import MirrorB
from attacks.mirror_w import MirrorW
from attacks.ppa import PPA
from attacks.spec import AttackSpec

ATTACKS: dict[str, type[PPA] | type[MirrorW] | type[MirrorB]] = {
    "ppa": PPA,
    "mirror-w": MirrorW,
    "mirror-b": MirrorB,
}


def make_attack(spec: AttackSpec) -> Attack:
    """Return the attack that a spec describes."""
    attack: Attack = ATTACKS[spec.name](spec)  # type: ignore[arg-type]  # the name picks it
    return attack
