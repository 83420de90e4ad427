"""What defences change in a network: a bottleneck, group normalisation, lost skips, frozen stages.

A change depends on the settings alone, so that a checkpoint's network is built again without the
data, and a network that lacks what a defence needs is refused before anything is trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.defenses.spec import AnyDefense, DpSgdSpec, MidSpec, RolssSpec, TransferSpec
from tasks.errors import SpecError


def change_network(network: nn.Module, defense: AnyDefense) -> nn.Module:
    """Return the network as a defence wants it; it is changed in place.

    Raises:
        SpecError: the network lacks what the defence needs.
    """
    if isinstance(defense, MidSpec):
        insert_bottleneck(network, defense)
    elif isinstance(defense, DpSgdSpec):
        replace_batchnorm(network)
    elif isinstance(defense, RolssSpec):
        remove_skips(network, defense.stages)
    elif isinstance(defense, TransferSpec):
        for module in frozen_modules(network, defense.frozen):
            module.requires_grad_(False)
    return network


class Bottleneck(nn.Module):
    """Features become the mean and spread of a code; the last layer sees a draw from it.

    Args:
        features: of the network below.
        size: dimensions of the code.
        classes: outputs.
        noise_at_test: whether a trained network draws too.
    """

    def __init__(self, features: int, size: int, classes: int, noise_at_test: bool) -> None:
        super().__init__()
        self.encode = nn.Linear(features, 2 * size)
        self.head = nn.Linear(size, classes)
        self.noise_at_test = noise_at_test
        self.information = torch.zeros(())
        self._generator: torch.Generator | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, classes); in training the code's information is kept beside them."""
        mean, spread = self.encode(features).float().chunk(2, dim=1)
        deviation = functional.softplus(spread - 5) + 1e-7
        code = mean
        if self.training:
            self.information = _divergence(mean, deviation)
            code = mean + deviation * torch.randn_like(mean)
        elif self.noise_at_test:
            code = mean + deviation * self._noise(mean)
        logits: Tensor = self.head(code)
        return logits

    def _noise(self, like: Tensor) -> Tensor:
        # A source of its own: what a trained network answers depends on what it was asked alone.
        if self._generator is None or self._generator.device != like.device:
            self._generator = torch.Generator(like.device).manual_seed(0)
        return torch.randn(like.shape, generator=self._generator, device=like.device)


def _divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return KL(N(mean, deviation) || N(0, 1)) summed over rows and dimensions."""
    variance = deviation.square()
    return 0.5 * (mean.square() + variance - variance.log() - 1).sum()


def insert_bottleneck(network: nn.Module, spec: MidSpec) -> None:
    """Put a bottleneck in the place of the last linear layer.

    Raises:
        SpecError: there is none.
    """
    linear = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise SpecError(
            f"defence mid needs a last linear layer, which {type(network).__name__} lacks; choose "
            "another training.architecture"
        )
    name, last = linear[-1]
    bottleneck = Bottleneck(last.in_features, spec.size, last.out_features, spec.noise_at_test)
    _replace(network, name, bottleneck)


class GroupNorm(nn.GroupNorm):
    """Group normalisation in float32, whatever the precision around it.

    In bfloat16 a processor's kernel takes longer than all convolutions; see
    `benchmarks/group_norm.py`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised features of the same shape and type."""
        return super().forward(x.float()).to(x.dtype)


def replace_batchnorm(network: nn.Module) -> None:
    """Put group normalisation in the place of batch normalisation, as Opacus' validator does.

    The statistics of a batch mix images, so that no gradient would belong to one of them.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            channels = module.num_features
            _replace(network, name, GroupNorm(math.gcd(32, channels), channels))
        elif hasattr(module, "inplace"):
            module.inplace = False  # in-place activations break per-image gradients


class NoSkip(nn.Module):
    """Stands where a skip connection was: adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a zero that any map can be added to."""
        return x.new_zeros(())


def remove_skips(network: nn.Module, stages: int) -> None:
    """Take the skip connections out of the last stages.

    Raises:
        SpecError: the network has none, or fewer stages.
    """
    found = [
        [block for block in stage.modules() if hasattr(block, "skip") or _torchvision(block)]
        for stage in hidden_layers(network)
    ]
    residual = [blocks for blocks in found if blocks]
    if len(residual) < stages:
        raise SpecError(
            f"defence rolss takes the skip connections out of {stages} stages, and "
            f"{type(network).__name__} has {len(residual)} with any; choose a residual "
            "training.architecture, or fewer training.defense.stages"
        )
    for block in (block for blocks in residual[-stages:] for block in blocks):
        setattr(block, "downsample" if _torchvision(block) else "skip", NoSkip())


def _torchvision(block: nn.Module) -> bool:
    return hasattr(block, "downsample") and hasattr(block, "conv1")


def frozen_modules(network: nn.Module, stages: int) -> list[nn.Module]:
    """Return the innermost modules up to the end of the first stages, in their order.

    Raises:
        SpecError: nothing would be left to learn.
    """
    layers = hidden_layers(network)
    if stages >= len(layers):
        raise SpecError(
            f"defence transfer freezes {stages} stages, and {type(network).__name__} has "
            f"{len(layers)}, of which one must learn; lower training.defense.frozen"
        )
    last = [*layers[stages - 1].modules()][-1]
    found = []
    for module in network.modules():
        if not [*module.children()]:
            found.append(module)
        if module is last:
            break
    return found


def hidden_layers(network: nn.Module, names: tuple[str, ...] | None = None) -> list[nn.Module]:
    """Return the modules whose outputs are a network's hidden layers, first to last.

    Args:
        network: any of ours or torchvision's.
        names: of modules; None takes the ends of the stages.

    Raises:
        SpecError: a name is unknown, or the network has no stages.
    """
    kind = type(network).__name__
    known = dict(network.named_modules())
    if names is not None:
        for name in names:
            if name not in known:
                raise SpecError(f"{kind} has no module {name!r}; correct training.defense.layers")
        return [known[name] for name in names]
    stages = [known[name] for name in ("layer1", "layer2", "layer3", "layer4") if name in known]
    for place in ("stages", "blocks"):
        if not stages and place in known:
            stages = [*known[place].children()]
    if not stages:
        stages = [module for module in known.values() if isinstance(module, nn.MaxPool2d)]
    if len(stages) < 2 and "features" in known:
        stages = [*known["features"].children()]
    if len(stages) < 2:
        raise SpecError(
            f"the defence needs hidden layers, and {kind} has no stages that are known; name "
            "modules in training.defense.layers, or choose another training.architecture"
        )
    return stages


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
