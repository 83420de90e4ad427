"""Random StyleGAN2 weights, the files that two programs would keep them in, and a slow generator.

The layouts are those of the programs' own files: names, shapes, nesting, and how a pickle holds
them. The generator is written from the paper over the unscaled weights, in NumPy, with the
convolution of each image by its own weights: it shares nothing with the one under test.
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]


@dataclass
class Layer:
    weight: Array
    bias: Array
    affine: tuple[Array, Array]
    noise: Array | None = None
    strength: float = 0.0


@dataclass
class Net:
    """A network as training keeps it: gains apart from the weights."""

    mapping: list[tuple[Array, Array]]
    const: Array
    convs: list[Layer]
    rgbs: list[Layer]
    w_avg: Array
    sizes: list[int] = field(default_factory=list)


def random_net(channels: list[int], z_size: int = 6, w_size: int = 5, layers: int = 2) -> Net:
    rng = np.random.default_rng(len(channels))

    def normal(*shape: int) -> Array:
        # Values that float32 has, so that both files hold the very same.
        made: Array = rng.standard_normal(shape).astype(np.float32).astype(np.float64)
        return made

    def layer(inputs: int, outputs: int, kernel: int, side: int | None) -> Layer:
        made = Layer(
            normal(outputs, inputs, kernel, kernel),
            normal(outputs) * 0.25,
            (normal(inputs, w_size), 1 + normal(inputs) * 0.25),
        )
        if side is not None:
            made.noise, made.strength = normal(side, side), float(np.float32(rng.uniform(0.1, 0.5)))
        return made

    widths = [z_size, *[w_size] * layers]
    mapping = [
        (normal(b, a) * 128, normal(b) * 16) for a, b in zip(widths, widths[1:], strict=False)
    ]
    convs, rgbs = [layer(channels[0], channels[0], 3, 4)], [layer(channels[0], 3, 1, None)]
    for i in range(1, len(channels)):
        convs.append(layer(channels[i - 1], channels[i], 3, 4 * 2**i))
        convs.append(layer(channels[i], channels[i], 3, 4 * 2**i))
        rgbs.append(layer(channels[i], 3, 1, None))
    return Net(mapping, normal(channels[0], 4, 4), convs, rgbs, normal(w_size), channels)


# --- the slow generator -------------------------------------------------------------------------


def slow_map(net: Net, z: Array) -> Array:
    x = z / np.sqrt((z**2).mean(axis=1, keepdims=True) + 1e-8)
    for weight, bias in net.mapping:
        x = x @ weight.T * 0.01 / np.sqrt(weight.shape[1]) + bias * 0.01
        x = np.where(x < 0, 0.2 * x, x) * np.sqrt(2)
    return np.asarray(x, np.float64)


def slow_image(net: Net, w: Array, clamp: float = np.inf) -> Array:
    """Return what the network draws of one w, (3, s, s), unbounded."""
    x = slow_layer(net.convs[0], net.const, w, clamp)
    image = slow_rgb(net.rgbs[0], x, w, clamp)
    for i in range(1, len(net.rgbs)):
        x = slow_layer(net.convs[2 * i - 1], x, w, clamp, up=True)
        x = slow_layer(net.convs[2 * i], x, w, clamp)
        image = upfirdn(image, up=2, before=2, after=1, gain=4) + slow_rgb(net.rgbs[i], x, w, clamp)
    return image


def slow_layer(layer: Layer, x: Array, w: Array, clamp: float, *, up: bool = False) -> Array:
    x = slow_modconv(x, layer.weight, _style(layer, w), up=up)
    assert layer.noise is not None
    x = x + layer.strength * layer.noise + layer.bias[:, None, None]
    y: Array = np.clip(np.where(x < 0, 0.2 * x, x) * np.sqrt(2), -clamp, clamp)
    return y


def slow_rgb(layer: Layer, x: Array, w: Array, clamp: float) -> Array:
    weight = layer.weight / np.sqrt(layer.weight[0].size)
    y = slow_modconv(x, weight, _style(layer, w), demodulate=False)
    image: Array = np.clip(y + layer.bias[:, None, None], -clamp, clamp)
    return image


def _style(layer: Layer, w: Array) -> Array:
    weight, bias = layer.affine
    style: Array = weight @ w / np.sqrt(len(w)) + bias
    return style


def slow_modconv(
    x: Array, weight: Array, style: Array, *, up: bool = False, demodulate: bool = True
) -> Array:
    """Modulated convolution of one image (inputs, h, h), one product at a time."""
    own = weight * style[None, :, None, None]
    if demodulate:
        own = own / np.sqrt((own**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    outputs, inputs, kernel, _ = own.shape
    side = x.shape[1]
    if up:  # every pixel spreads the kernel over an image of twice the size, then the low-pass
        wide = np.zeros((outputs, 2 * side + 1, 2 * side + 1))
        for o, i, a, b in np.ndindex(outputs, inputs, kernel, kernel):
            wide[o, a : a + 2 * side : 2, b : b + 2 * side : 2] += own[o, i, a, b] * x[i]
        return upfirdn(wide, up=1, before=1, after=1, gain=4)
    padded = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    y = np.zeros((outputs, side, side))
    for o, i, a, b in np.ndindex(outputs, inputs, kernel, kernel):
        y[o] += own[o, i, a, b] * padded[i, a : a + side, b : b + side]
    return y


def upfirdn(x: Array, *, up: int, before: int, after: int, gain: float) -> Array:
    """Zeros between the pixels of (c, h, h), zeros around them, and the filter 1 3 3 1."""
    channels, side, _ = x.shape
    wide = np.zeros((channels, side * up, side * up))
    wide[:, ::up, ::up] = x
    wide = np.pad(wide, ((0, 0), (before, after), (before, after)))
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * gain
    left = wide.shape[1] - 3
    y = np.zeros((channels, left, left))
    for c, i, j in np.ndindex(y.shape):
        y[c, i, j] = (wide[c, i : i + 4, j : j + 4] * taps).sum()
    return y


# --- NVIDIA's pickle ----------------------------------------------------------------------------


class Persistent:
    """Pickles as NVIDIA's decorated classes do: source and state to a function of theirs."""

    source = "import os\n"

    def __init__(self, name: str, **state: Any) -> None:
        self.class_name, self.state = name, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


@contextmanager
def nvidia_modules() -> Iterator[None]:
    """Let pickle find the names of NVIDIA's program while it writes."""

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("only written, never read")

    class EasyDict(dict[str, Any]):
        pass

    modules = {
        name: ModuleType(name)
        for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    for module, thing in (
        ("torch_utils.persistence", _reconstruct_persistent_obj),
        ("dnnlib.util", EasyDict),
    ):
        thing.__module__, thing.__qualname__ = module, thing.__name__
        setattr(modules[module], thing.__name__, thing)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def _module(
    name: str,
    parameters: dict[str, Any] | None = None,
    buffers: dict[str, Any] | None = None,
    children: dict[str, Persistent] | None = None,
    **facts: Any,
) -> Persistent:
    def parameter(value: Array) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.tensor(value, dtype=torch.float32), requires_grad=False)

    easy = sys.modules["dnnlib.util"].EasyDict
    return Persistent(
        name,
        training=False,
        _parameters=OrderedDict(
            (k, None if v is None else parameter(v)) for k, v in (parameters or {}).items()
        ),
        _buffers=OrderedDict(
            (k, torch.tensor(v, dtype=torch.float32)) for k, v in (buffers or {}).items()
        ),
        _non_persistent_buffers_set=set(),
        _backward_hooks=OrderedDict(),
        _forward_hooks=OrderedDict(),
        _forward_pre_hooks=OrderedDict(),
        _state_dict_hooks=OrderedDict(),
        _load_state_dict_pre_hooks=OrderedDict(),
        _modules=OrderedDict(children or {}),
        _init_args=(),
        _init_kwargs=easy(facts),
        **facts,
    )


def _dense(weight: Array, bias: Array, rate: float = 1) -> Persistent:
    return _module(
        "FullyConnectedLayer",
        {"weight": weight, "bias": bias},
        activation="lrelu" if rate != 1 else "linear",
        weight_gain=rate / np.sqrt(weight.shape[1]),  # a NumPy number, as there
        bias_gain=rate,
    )


FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def nvidia_network(net: Net, clamp: float | None = 256, **facts: Any) -> Persistent:
    """Return `G_ema`; only inside `nvidia_modules`."""

    def layer(one: Layer, side: int, up: int) -> Persistent:
        return _module(
            "SynthesisLayer",
            {"weight": one.weight, "noise_strength": np.array(one.strength), "bias": one.bias},
            {"resample_filter": FIR, "noise_const": one.noise},
            {"affine": _dense(*one.affine)},
            resolution=side,
            up=up,
            use_noise=True,
            activation="lrelu",
            conv_clamp=clamp,
            padding=1,
            act_gain=np.sqrt(2),
        )

    blocks: dict[str, Persistent] = {}
    for i, rgb in enumerate(net.rgbs):
        side = 4 * 2**i
        children = {"conv0": layer(net.convs[2 * i - 1], side, 2)} if i else {}
        children["conv1"] = layer(net.convs[2 * i], side, 1)
        children["torgb"] = _module(
            "ToRGBLayer",
            {"weight": rgb.weight, "bias": rgb.bias},
            children={"affine": _dense(*rgb.affine)},
            conv_clamp=clamp,
            weight_gain=1 / np.sqrt(rgb.weight.shape[1]),
        )
        blocks[f"b{side}"] = _module(
            "SynthesisBlock",
            {} if i else {"const": net.const},
            {"resample_filter": FIR},
            children,
            **{"resolution": side, "architecture": "skip", "use_fp16": side > 8} | facts,
        )
    fully = {f"fc{i}": _dense(*pair, rate=0.01) for i, pair in enumerate(net.mapping)}
    mapping = _module("MappingNetwork", {}, {"w_avg": net.w_avg}, fully, num_layers=len(fully))
    synthesis = _module("SynthesisNetwork", children=blocks, img_channels=3)
    return _module(
        "Generator",
        children={"synthesis": synthesis, "mapping": mapping},
        **{"z_dim": net.mapping[0][0].shape[1], "c_dim": 0, "img_channels": 3} | facts,
    )


def write_nvidia(net: Net, path: Path, protocol: int = 3, **facts: Any) -> Path:
    with nvidia_modules():
        whole = {
            "G": None,
            "D": None,
            "G_ema": nvidia_network(net, **facts),
            "augment_pipe": _module("AugmentPipe", {}, {"p": np.zeros(())}),
            "training_set_kwargs": sys.modules["dnnlib.util"].EasyDict(xflip=True),
        }
        path.write_bytes(pickle.dumps(whole, protocol=protocol))
    return path


# --- rosinality's .pt ---------------------------------------------------------------------------


def rosinality_state(net: Net) -> OrderedDict[str, torch.Tensor]:
    state: OrderedDict[str, torch.Tensor] = OrderedDict()

    def put(name: str, value: Array) -> None:
        state[name] = torch.tensor(value, dtype=torch.float32)

    def layer(name: str, one: Layer, up: bool) -> None:
        put(f"{name}.conv.weight", one.weight[None])
        if up:
            put(f"{name}.conv.blur.kernel", FIR * 4)
        put(f"{name}.conv.modulation.weight", one.affine[0])
        put(f"{name}.conv.modulation.bias", one.affine[1])
        put(f"{name}.noise.weight", np.array([one.strength]))
        put(f"{name}.activate.bias", one.bias)

    for i, (weight, bias) in enumerate(net.mapping):
        put(f"style.{i + 1}.weight", weight)
        put(f"style.{i + 1}.bias", bias)
    put("input.input", net.const[None])
    layer("conv1", net.convs[0], up=False)
    for i, one in enumerate(net.convs[1:]):
        layer(f"convs.{i}", one, up=i % 2 == 0)
    for i, rgb in enumerate(net.rgbs):
        name = f"to_rgbs.{i - 1}" if i else "to_rgb1"
        if i:
            put(f"{name}.upsample.kernel", FIR * 4)
        put(f"{name}.conv.weight", rgb.weight[None])
        put(f"{name}.conv.modulation.weight", rgb.affine[0])
        put(f"{name}.conv.modulation.bias", rgb.affine[1])
        put(f"{name}.bias", rgb.bias.reshape(1, 3, 1, 1))
    for i, one in enumerate(net.convs):
        assert one.noise is not None
        put(f"noises.noise_{i}", one.noise[None, None])
    return state


def write_rosinality(net: Net, path: Path, *, old: bool = False, **more: Any) -> Path:
    whole = {
        "g_ema": rosinality_state(net),
        "latent_avg": torch.tensor(net.w_avg, dtype=torch.float32),
    } | more
    torch.save(whole, path, _use_new_zipfile_serialization=not old)
    return path
