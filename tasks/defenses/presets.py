"""Published settings of defences by name, each with its source.

They are deltas over a defence's defaults; where a source also fixes optimiser, epochs or
architecture, its text says so, since those belong to `training`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.suggestions import did_you_mean


class Preset(NamedTuple):
    """Settings of a defence, and where they come from."""

    settings: dict[str, Any]
    source: str


_MID = {"name": "mid", "size": 1024, "noise_at_test": True}

PRESETS: dict[str, Preset] = {
    "dp-sgd/opacus-cifar10": Preset(
        {
            "name": "dp-sgd",
            "noise_multiplier": 1.5,
            "max_grad_norm": 10.0,
            "optimiser": "sgd",
            "learning_rate": 0.1,
            "batch_size": 2000,
            "epochs": 90,
            "delta": 1e-5,
        },
        "Opacus 1.5, CIFAR-10 example",
    ),
    "dp-sgd/mi-literature": Preset(
        {
            "name": "dp-sgd",
            "noise_multiplier": 0.01,
            "max_grad_norm": 1.0,
            "optimiser": "sgd",
            "learning_rate": 0.03,
            "epochs": 200,
        },
        "code released with MID (AAAI 2021): noise 0.01, which guarantees nothing; there batch "
        "normalisation stays, here groups replace it",
    ),
    "mid/celeba-vgg16": Preset(
        _MID | {"beta": 0.003},
        "Wang et al., AAAI 2021, released code; SGD 0.01, 50 epochs",
    ),
    "mid/simple-cnn": Preset(
        _MID | {"beta": 0.001}, "Wang et al., AAAI 2021, released code, small network"
    ),
    "mid/mibench": Preset(_MID | {"beta": 0.01}, "MIBench's default"),
    "bido/celeba-hsic": Preset(
        {"name": "bido", "measure": "hsic", "input_weight": 0.05, "label_weight": 0.5},
        "Peng et al., KDD 2022; Adam 1e-4, 50 epochs, batches of 64 with 4 images a class",
    ),
    "bido/mnist-coco": Preset(
        {"name": "bido", "measure": "coco", "input_weight": 1.0, "label_weight": 50.0},
        "Peng et al., KDD 2022",
    ),
    "neg-ls/facescrub": Preset(
        {"name": "neg-ls", "alpha": -0.05, "start": 0.5, "full": 0.75},
        "Struppek et al., ICLR 2024; Adam 1e-3, 100 epochs",
    ),
    "midre/facescrub": Preset(
        {"name": "random-erasing", "probability": 1.0, "least_area": 0.1, "most_area": 0.4},
        "MIDRE, TMLR 2025; ResNet-18, Adam 1e-3, 100 epochs",
    ),
    "midre/strong": Preset(
        {"name": "random-erasing", "probability": 1.0, "least_area": 0.1, "most_area": 0.8},
        "MIDRE, TMLR 2025, the larger squares",
    ),
    "tl-dmi/resnet": Preset(
        {"name": "transfer", "frozen": 2},
        "Ho et al., CVPR 2024: ResNets frozen up to their second stage; needs `weights`",
    ),
    "trap-mid/celeba": Preset(
        {"name": "trap-mid", "weight": 0.2, "blend": 0.02, "step": 0.01},
        "Trap-MID, NeurIPS 2024; SGD 0.01, batches of 64, 50 epochs (40 for IR-152)",
    ),
    "rolss/resnet": Preset(
        {"name": "rolss", "stages": 1}, "RoLSS, ECCV 2024: skips of the last of four stages"
    ),
}


def expand(value: Any) -> Any:
    """Return a defence as a mapping of settings, a preset filled in.

    Args:
        value: settings, or a name alone: of a defence, or of a preset.

    Raises:
        ValueError: no preset has that name.
    """
    if isinstance(value, str):
        return expand({"preset": value}) if "/" in value else {"name": value}
    if not isinstance(value, dict) or value.get("preset") is None:
        return value
    name = value["preset"]
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown{did_you_mean(str(name), PRESETS)}")
    return PRESETS[name].settings | value
