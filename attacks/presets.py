"""Published settings by name: each a short delta over an attack's defaults, with its source.

They are for the published priors and image sizes (`docs/attacks.md` names them). A prior of another
size needs other learning rates and radii.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.errors import SpecError
from tasks.suggestions import did_you_mean


class Preset(NamedTuple):
    """Settings of an attack, and where they come from."""

    settings: dict[str, Any]
    source: str


def _ppa(pool: int, steps: int, learning_rate: float = 0.005) -> dict[str, Any]:
    return {
        "name": "ppa",
        "pool": pool,
        "candidates": 200,
        "steps": steps,
        "learning_rate": learning_rate,
        "keep": 50,
        "selection_rounds": 100,
        "truncation": 0.5,
    }


_PPA = "Struppek et al., ICML 2022, released configuration"
_GMI = {"name": "gmi", "restarts": 5, "learning_rate": 0.02, "clip": 1.0}
_IF = {"name": "if-gmi", "candidates": 50, "keep": 50, "learning_rate": 0.005, "truncation": 0.5}
_IF_RADII = (1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 8000.0)
_MIRROR = {"pool": 100_000, "clip_sigmas": 1.0, "truncation": 0.7}
_LOMMA = {"loss": "logit", "feature_weight": 1.0, "steps": 2400}
_STUDENTS = ("efficientnet_b0", "efficientnet_b1", "efficientnet_b2")

PRESETS: dict[str, Preset] = {
    "ppa/celeba-ffhq": Preset(_ppa(5000, 70), _PPA),
    "ppa/celeba-metfaces": Preset(_ppa(5000, 70), _PPA),
    "ppa/facescrub-ffhq": Preset(_ppa(2000, 50), _PPA),
    "ppa/facescrub-metfaces": Preset(_ppa(5000, 70), _PPA),
    "ppa/dogs-afhq": Preset(_ppa(2000, 100, 0.01), _PPA),
    "ppa-taa/celeba-ffhq": Preset(
        _ppa(5000, 70) | {"views": 50, "title": "ppa-taa"},
        "AlignMI, NeurIPS 2025: gradients averaged over 50 views",
    ),
    "gmi/celeba": Preset(_GMI | {"steps": 1500}, "Zhang et al., CVPR 2020, released default"),
    "gmi/celeba-ked": Preset(
        _GMI | {"steps": 2400}, "the baseline in KED-MI (ICCV 2021) and LOMMA (CVPR 2023)"
    ),
    "plg-mi/celeba": Preset(
        {
            "name": "gmi",
            "title": "plg-mi",
            "optimiser": "adam",
            "restarts": 5,
            "steps": 600,
            "learning_rate": 0.1,
            "loss": "max-margin",
            "views": 2,
            "clip": 100.0,
        },
        "Yuan et al., AAAI 2023: its search; its conditional GAN is not part of this",
    ),
    "lomma/gmi": Preset(
        _GMI | _LOMMA | {"students": _STUDENTS, "title": "lomma"},
        "Nguyen et al., CVPR 2023: GMI with the logit loss, features and three students",
    ),
    "lomma/gmi-logit": Preset(
        _GMI | _LOMMA | {"title": "lomma-logit"}, "the same without students (its LOM ablation)"
    ),
    "if-gmi/facescrub-ffhq": Preset(
        _IF | {"pool": 2000, "steps": 50, "layer_steps": 10, "layers": 7, "radii": _IF_RADII},
        "Qiu et al., ECCV 2024, released configuration",
    ),
    "if-gmi/celeba-metfaces": Preset(
        _IF | {"pool": 5000, "steps": 70, "layer_steps": 25, "layers": 7, "radii": _IF_RADII},
        "Qiu et al., ECCV 2024, released configuration",
    ),
    "mirror-w/vggface2": Preset(
        _MIRROR | {"name": "mirror-w", "starts": 8, "steps": 20_000, "learning_rate": 0.2},
        "An et al., NDSS 2022, released default",
    ),
    "mirror-b/vggface2": Preset(
        _MIRROR
        | {
            "name": "mirror-b",
            "restarts": 1,
            "population": 1000,
            "generations": 100,
            "mutation_probability": 0.1,
            "mutation_size": 0.1,
            "stop_confidence": 0.95,
        },
        "An et al., NDSS 2022, released scripts; the crossover is the paper's",
    ),
    "brep-mi/celeba": Preset(
        {
            "name": "brep-mi",
            "restarts": 1,
            "points": 32,
            "steps": 20_000,
            "patience": 1000,
            "radius": 2.0,
            "growth": 1.3,
            "share": 0.75,
            "step_size": 3.0,
            "clip": 1.5,
        },
        "Kahla et al., CVPR 2022, released default",
    ),
}

ADAPTIVE = ("modes", "reject", "sharp", "level", "attribute", "views")


def expand(value: Any) -> Any:
    """Return an attack as a mapping of settings, a preset filled in.

    Args:
        value: settings; or a name alone, of an attack, of a preset, or `adaptive-` and a strategy.

    Raises:
        SpecError: no preset has that name.
    """
    if isinstance(value, str):
        strategy = value.removeprefix("adaptive-")
        if strategy != value:
            return {"name": "adaptive", "strategy": strategy}
        return expand({"preset": value}) if "/" in value else {"name": value}
    if not isinstance(value, dict) or value.get("preset") is None:
        return value
    name = value["preset"]
    if name not in PRESETS:
        raise SpecError(f"preset {name!r} is unknown{did_you_mean(str(name), PRESETS)}")
    return PRESETS[name].settings | value
