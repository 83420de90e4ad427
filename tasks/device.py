"""Where tensors live and in which precision a forward pass runs."""

from __future__ import annotations

import functools
import platform
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def default_device() -> torch.device:
    """Return the first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Say whether bfloat16 runs in hardware: on the CPU with AVX-512 BF16 or AMX instructions."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the dtype for autocast, None for float32."""
    if precision == "float32":
        return None
    if precision == "float16":
        return torch.float16
    if precision == "auto" and not has_fast_bfloat16(device.type):
        return None
    return torch.bfloat16


def device_name() -> str:
    """Return what computes here, for comparing times: the GPU's name, else the processor's."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    try:
        with open("/proc/cpuinfo") as file:
            names = (line.split(":", 1)[1] for line in file if line.startswith("model name"))
            return next(names).strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
