"""Batch normalisation over all CPU processes; torch's own SyncBatchNorm needs a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """A sum over all processes whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the batch over all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, h, w) with statistics of every process's x."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        sums = _SumOverProcesses.apply(sums)
        channels = x.shape[1]
        mean = sums[:channels] / sums[-1]
        var = (sums[channels:-1] / sums[-1] - mean.square()).clamp_min(0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            momentum = 0.0 if self.momentum is None else self.momentum
            unbiased = var * (sums[-1] / (sums[-1] - 1))
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        out: Tensor = values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return out.to(x.dtype)


def globalise_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d by the global one, sharing parameters and statistics."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            twin = GlobalBatchNorm2d(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            twin.load_state_dict(child.state_dict())
            setattr(module, name, twin)
        else:
            globalise_batchnorm(child)
    return module
