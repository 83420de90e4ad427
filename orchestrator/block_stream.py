"""Ray Data, as this project uses it: blocks of rows in, batches of arrays out, nothing shuffled.

Every row carries what says where its result goes, so the order in which blocks end does not matter,
and neither does their number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks import errors
from tasks.errors import DcdctlError

Batch = dict[str, npt.NDArray[Any]]

_ERROR, _SENTENCE = "error", "sentence"  # columns of a batch that tells of a failure


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

    Raises:
        DcdctlError: of the kind and with the sentence that `function` raised.
    """
    import ray
    from ray.data import DataContext

    if not blocks:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    results = ray.data.from_arrow(list(blocks)).map_batches(
        partial(_guarded, function=function), batch_size=None, batch_format="pyarrow"
    )
    # Set only now, since Ray configures its loggers when the data set is made. What it would say
    # of a failure, on two hundred lines, is in the exception too.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    for batch in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        if _ERROR in batch:
            raise getattr(errors, batch[_ERROR][0])(batch[_SENTENCE][0])
        yield batch


def share(array: npt.NDArray[Any]) -> Callable[[], npt.NDArray[Any]]:
    """Put an array into Ray's object store; workers call the result to see it without a copy."""
    import ray

    return partial(ray.get, ray.put(np.asarray(array)))


def cut(table: pa.Table, rows_per_block: int) -> list[pa.Table]:
    """Return consecutive parts of at most `rows_per_block` rows.

    They are copies: a mere slice would take its whole table along into the object store.
    """
    starts = range(0, table.num_rows, rows_per_block)
    return [table.take(np.arange(a, min(a + rows_per_block, table.num_rows))) for a in starts]


def _guarded(block: pa.Table, *, function: Callable[[pa.Table], Batch]) -> Batch:
    """Carry our own errors as data: Ray would wrap the sentence into its stack traces."""
    try:
        return function(block)
    except DcdctlError as error:
        return {_ERROR: np.array([type(error).__name__]), _SENTENCE: np.array([str(error)])}
