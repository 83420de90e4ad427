"""Too little memory: what says so, and how work is cut smaller.

A batch that does not fit is halved, again and again, until it fits. Python, torch on a CPU and
torch on a GPU say it in three ways.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from tasks.errors import DcdctlError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SAYINGS = (
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "cannot allocate memory",
    "could not create a memory object",  # oneDNN, and where it compiles for a new shape:
    "could not create a primitive",
    "out of memory",
)
"""How torch says it in a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is that of an allocation, of the processor or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return type(error) is RuntimeError and any(words in said for words in SAYINGS)


def halving(
    work: Callable[[int], Answer], rows: int, least: int, too_large: DcdctlError
) -> tuple[Answer, int]:
    """Do work with fewer and fewer rows at once until it fits into memory.

    Args:
        work: starts from the beginning each time, with so many rows at once.
        rows: to begin with.
        least: rows that it makes sense with.
        too_large: raised when those are too many.

    Returns:
        The answer, and the rows at once that it took.
    """
    while True:
        try:
            return work(rows), rows
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if rows // 2 < least:
                raise too_large from error
        # Only here are the tensors of the broken attempt free: the error held its frames.
        rows //= 2
        log.warning("not enough memory: going on with %d rows at once", rows)
        free_memory()


def free_memory() -> None:
    """Give back what nobody uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
