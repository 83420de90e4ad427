"""StyleGAN2 priors out of other people's weight files.

Two layouts: NVIDIA's stylegan2-ada-pytorch (a pickle of a dict with the network `G_ema`) and
rosinality's stylegan2-pytorch (`torch.save` of a dict with the state dict `g_ema`). Both keep the
equalised learning rates apart from the weights; here they are multiplied into them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from attacks.prior_pickle import Record, TensorView
from attacks.prior_stylegan2 import SIZES, StyleGan2Prior, StyleGan2Shape
from attacks.prior_torch_files import read_weights, tensor
from attacks.stylegan2_layers import FILTER
from tasks.draws import Draws
from tasks.errors import DataError

Layout = Literal["stylegan2-ada-pytorch", "stylegan2-pytorch"]
Weights = dict[str, Tensor]

MAPPING_RATE = 0.01
"""Learning rate multiplier of the mapping network, in both programs."""

MEAN_DRAWS = 10_000
"""Draws of w whose mean stands for its mean, where a file has none."""


@dataclass(frozen=True)
class Converted:
    """A prior, and which program's file it was."""

    prior: StyleGan2Prior
    layout: Layout


def convert(path: Path) -> Converted:
    """Read a StyleGAN2 generator from somebody else's file; nothing in it is run.

    Raises:
        MissingDataError: there is no such file.
        UnsafePickleError: it asks for something that weights do not need.
        DataError: it is damaged, or no StyleGAN2 that can be a prior here.
    """
    tree = read_weights(path)
    try:
        shape, weights, layout = _read(path, tree)
    except (IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"{path} has other shapes than StyleGAN2's ({type(error).__name__}); it is damaged, or "
            "another network"
        ) from error
    prior = StyleGan2Prior(shape)
    wanted = prior.state_dict()
    weights = {"w_mean": torch.zeros(prior.w_size)} | weights
    for name, value in wanted.items():
        if name not in weights or weights[name].shape != value.shape:
            raise DataError(
                f"{path} has no {name} of shape {tuple(value.shape)}, as its other weights ask "
                "for; it is damaged, or another network"
            )
    prior.load_state_dict({name: weights[name] for name in wanted})
    prior.eval().requires_grad_(False)
    if not bool(prior.w_mean.any()):
        z = Draws(0, ("prior", "mean")).normal(np.arange(MEAN_DRAWS), prior.z_size)
        prior.w_mean.copy_(prior.map(torch.from_numpy(z).float()).mean(0))
    return Converted(prior, layout)


def _read(path: Path, tree: Any) -> tuple[StyleGan2Shape, Weights, Layout]:
    network = tree.get("G_ema") if isinstance(tree, dict) else None
    if isinstance(network, Record):
        return *_from_nvidia(path, network), "stylegan2-ada-pytorch"
    if isinstance(tree, dict) and isinstance(tree.get("g_ema"), dict):
        return *_from_rosinality(path, tree), "stylegan2-pytorch"
    raise DataError(
        f"{path} holds neither `G_ema` of stylegan2-ada-pytorch nor `g_ema` of stylegan2-pytorch; "
        "a TensorFlow pickle goes through stylegan2-ada-pytorch's legacy.py first"
    )


def _from_nvidia(path: Path, network: Record) -> tuple[StyleGan2Shape, Weights]:
    state = _flat(network)
    facts = network.state
    if facts.get("c_dim"):
        raise DataError(
            f"{path} is conditional (c_dim={facts['c_dim']}), and an attack has no condition to "
            "give; use an unconditional generator"
        )
    blocks = [name for name in (f"synthesis.b{4 * 2**i}" for i in range(9)) if name in state.parts]
    for block in blocks:
        kind = state.parts[block].state.get("architecture")
        if kind != "skip":
            raise DataError(
                f"{path} has the architecture {kind!r}; only 'skip', StyleGAN2's own, can be read"
            )
    get = _getter(path, state.tensors)
    clamp = state.parts[f"{blocks[0]}.conv1"].state.get("conv_clamp") if blocks else None
    count = sum(name.startswith("mapping.fc") for name in state.parts)
    rates = [state.parts[f"mapping.fc{i}"].state.get("bias_gain") for i in range(count)]
    rate = rates[0] if rates and isinstance(rates[0], float) else MAPPING_RATE
    weights = _mapping([(f"mapping.fc{i}", "weight", "bias") for i in range(count)], get, rate)
    for i, block in enumerate(blocks):
        for layer in ("conv1",) if i == 0 else ("conv0", "conv1"):
            source, target = f"{block}.{layer}", f"blocks.{i}.{layer}"
            weights[f"{target}.weight"] = get(f"{source}.weight")
            weights[f"{target}.bias"] = get(f"{source}.bias")
            if f"{source}.noise_strength" in state.tensors:
                weights[f"{target}.strength"] = get(f"{source}.noise_strength").reshape(())
                weights[f"{target}.noise"] = get(f"{source}.noise_const")
            else:
                weights |= _silence(target, 4 * 2**i)
            weights |= _style(target, get(f"{source}.affine.weight"), get(f"{source}.affine.bias"))
            _check_filter(path, state.tensors, f"{source}.resample_filter", get)
        weights |= _rgb(
            f"blocks.{i}",
            *(
                get(f"{block}.torgb.{name}")
                for name in ("weight", "bias", "affine.weight", "affine.bias")
            ),
        )
    if blocks:
        weights["const"] = get(f"{blocks[0]}.const")
    if "mapping.w_avg" in state.tensors:
        weights["w_mean"] = get("mapping.w_avg")
    return _shape(path, weights, len(blocks), count, clamp), weights


def _from_rosinality(path: Path, tree: dict[Any, Any]) -> tuple[StyleGan2Shape, Weights]:
    tensors: dict[str, Any] = tree["g_ema"]
    get = _getter(path, tensors)
    doublings = sum(1 for i in range(9) if f"to_rgbs.{i}.bias" in tensors)
    count = sum(1 for i in range(1, 17) if f"style.{i}.weight" in tensors)
    weights = _mapping(
        [(f"style.{i + 1}", "weight", "bias") for i in range(count)], get, MAPPING_RATE
    )
    layers = [("conv1", "blocks.0.conv1", 0)]
    for i in range(doublings):
        layers += [(f"convs.{2 * i + j}", f"blocks.{i + 1}.conv{j}", i + 1) for j in range(2)]
    for number, (source, target, i) in enumerate(layers):
        weight = get(f"{source}.conv.weight")[0]
        # There the scale is inside the norm that demodulation divides by; only its floor can tell.
        weights[f"{target}.weight"] = weight / math.sqrt(weight[0].numel())
        weights[f"{target}.bias"] = get(f"{source}.activate.bias")
        modulation = f"{source}.conv.modulation"
        weights |= _style(target, get(f"{modulation}.weight"), get(f"{modulation}.bias"))
        if f"noises.noise_{number}" in tensors:
            weights[f"{target}.strength"] = get(f"{source}.noise.weight").reshape(())
            weights[f"{target}.noise"] = get(f"noises.noise_{number}")[0, 0]
        else:
            weights |= _silence(target, 4 * 2**i)
        _check_filter(path, tensors, f"{source}.conv.blur.kernel", get)
    for i in range(doublings + 1):
        source = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        weights |= _rgb(
            f"blocks.{i}",
            get(f"{source}.conv.weight")[0],
            get(f"{source}.bias").flatten(),
            get(f"{source}.conv.modulation.weight"),
            get(f"{source}.conv.modulation.bias"),
        )
    weights["const"] = get("input.input")[0]
    if isinstance(tree.get("latent_avg"), TensorView):
        weights["w_mean"] = tensor(tree["latent_avg"], "latent_avg").flatten()
    return _shape(path, weights, doublings + 1, count, None), weights


@dataclass(frozen=True)
class _Flat:
    """A network's modules and tensors by their dotted names."""

    parts: dict[str, Record]
    tensors: dict[str, Any]


def _flat(network: Record) -> _Flat:
    flat = _Flat({}, {})
    waiting: list[tuple[str, Record]] = [("", network)]
    while waiting:
        prefix, module = waiting.pop()
        for kind in ("_parameters", "_buffers"):
            for name, value in (module.state.get(kind) or {}).items():
                if value is not None:
                    flat.tensors[f"{prefix}{name}"] = value
        for name, child in (module.state.get("_modules") or {}).items():
            if isinstance(child, Record) and prefix.count(".") < 8:  # a cycle would not end
                flat.parts[f"{prefix}{name}"] = child
                waiting.append((f"{prefix}{name}.", child))
    return flat


def _getter(path: Path, tensors: dict[str, Any]) -> Callable[[str], Tensor]:
    def get(name: str) -> Tensor:
        if name not in tensors:
            raise DataError(
                f"{path} has no weights {name!r}; it is another network than StyleGAN2, or damaged"
            )
        return tensor(tensors[name], f"{path}: {name}")

    return get


def _mapping(
    layers: list[tuple[str, str, str]], get: Callable[[str], Tensor], rate: float
) -> Weights:
    found: Weights = {}
    for i, (layer, weight, bias) in enumerate(layers):
        matrix = get(f"{layer}.{weight}")
        found[f"mapping.{i}.weight"] = matrix * (rate / math.sqrt(matrix.shape[1]))
        found[f"mapping.{i}.bias"] = get(f"{layer}.{bias}") * rate
    return found


def _style(target: str, weight: Tensor, bias: Tensor) -> Weights:
    scaled = weight / math.sqrt(weight.shape[1])
    return {f"{target}.style.weight": scaled, f"{target}.style.bias": bias}


def _rgb(
    target: str, weight: Tensor, bias: Tensor, style_weight: Tensor, style_bias: Tensor
) -> Weights:
    scaled = weight / math.sqrt(weight[0].numel())
    style = _style(target, style_weight, style_bias)
    return {f"{target}.weight": scaled, f"{target}.bias": bias} | style


def _silence(target: str, side: int) -> Weights:
    """Return the noise of a file that has none: nothing."""
    return {f"{target}.strength": torch.zeros(()), f"{target}.noise": torch.zeros(side, side)}


def _check_filter(
    path: Path, tensors: dict[str, Any], name: str, get: Callable[[str], Tensor]
) -> None:
    """Refuse a resampling filter other than StyleGAN2's; its gain may be in it or not.

    Raises:
        DataError: it is another one.
    """
    if name not in tensors:
        return
    found, taps = get(name), torch.tensor(FILTER)
    wanted = torch.outer(taps, taps) if found.ndim == 2 else taps
    same = found.shape == wanted.shape and torch.allclose(
        found / found.sum(), wanted / wanted.sum(), atol=1e-5
    )
    if not same:
        raise DataError(f"{path}: {name} is not the filter 1, 3, 3, 1 of StyleGAN2")


def _shape(path: Path, weights: Weights, blocks: int, layers: int, clamp: Any) -> StyleGan2Shape:
    """Return the shape that the weights have.

    Raises:
        DataError: it is none of StyleGAN2's, or its images have not three channels.
    """
    size = 4 * 2 ** (blocks - 1) if blocks else 0
    if size not in SIZES or not layers:
        raise DataError(
            f"{path} makes images of {size} pixels by {layers} layers of mapping; a StyleGAN2 of "
            "32 to 1024 pixels is asked for"
        )
    if len(weights["blocks.0.weight"]) != 3:
        raise DataError(f"{path} makes images of {len(weights['blocks.0.weight'])} channels, not 3")
    try:
        return StyleGan2Shape(
            image_size=size,
            z_size=weights["mapping.0.weight"].shape[1],
            mapping=tuple(len(weights[f"mapping.{i}.weight"]) for i in range(layers)),
            channels=tuple(weights[f"blocks.{i}.conv1.weight"].shape[0] for i in range(blocks)),
            clamp=float(clamp) if isinstance(clamp, int | float) else None,
        )
    except (ValidationError, IndexError) as error:
        raise DataError(f"{path} has shapes that no StyleGAN2 has; it is damaged") from error
