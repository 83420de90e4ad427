"""Ray Data, as this project uses it: blocks of rows in, batches of arrays out, nothing shuffled.

Every row carries what says where its result goes, so the order in which blocks end does not matter,
and neither does their number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Batch = dict[str, npt.NDArray[Any]]


def map_blocks(
    blocks: Sequence[pa.Table], function: Callable[[pa.Table], Batch]
) -> Iterator[Batch]:
    """Apply a function to every block on the running Ray, and yield the results as they end.

    Args:
        blocks: non-empty tables of one schema; a block is one task on one core. They are held in
            the object store, so they should hold names and numbers, not pixels.
        function: gets a whole block and returns arrays of one length; it is pickled.

    Yields:
        What `function` returned, in no fixed order. No more results wait in the object store than
        fit in it: Ray holds back tasks while the consumer is slow.
    """
    import ray
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not blocks:
        return
    results = ray.data.from_arrow(list(blocks)).map_batches(
        function, batch_size=None, batch_format="pyarrow", zero_copy_batch=True
    )
    yield from results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1)


def cut(table: pa.Table, rows_per_block: int) -> list[pa.Table]:
    """Return consecutive slices of at most `rows_per_block` rows, copied so that each is alone.

    A slice of an Arrow table drags its whole table into the object store when it is pickled.
    """
    starts = range(0, table.num_rows, rows_per_block)
    return [table.take(np.arange(a, min(a + rows_per_block, table.num_rows))) for a in starts]
