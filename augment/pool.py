"""Where the pool of surrogates comes from: the data, identities held out of it, or drawn faces.

Every function returns the row table with another pool; what lends is always split "surrogate".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tasks.draws import Draws
from tasks.errors import SurrogateError


def hold_out(rows: pa.Table, count: int, named: Sequence[str], seed: int) -> pa.Table:
    """Take identities out of the private ones and let them lend their images instead.

    The model then has fewer classes: labels are counted again, in the old order. Test images of
    those held out are left out, and so are the identities that lent before.

    Args:
        rows: a row table.
        count: identities to hold out, a keyed draw.
        named: targets by name, who stay.
        seed: of the experiment.

    Raises:
        SurrogateError: fewer than two classes would be left.
    """
    identity = rows["identity"].to_numpy(zero_copy_only=False)
    split = rows["split"].to_numpy(zero_copy_only=False)
    labels = rows["label"].to_numpy()
    private, first = np.unique(labels[labels >= 0], return_index=True)
    names = [str(name) for name in identity[labels >= 0][first]]
    free = [name for name in names if name not in set(named)]
    if count > len(free) or count > len(private) - 2:
        raise SurrogateError(
            f"protect.pool_identities={count} cannot be held out of {len(private)} private "
            f"identities, {len(private) - len(free)} of them named as targets; hold out at most "
            f"{max(0, min(len(free), len(private) - 2))}"
        )
    draws = Draws(seed, ("held-out",))
    out = sorted(free, key=lambda name: draws.child(name).key)[:count]
    gone = np.isin(identity, out)
    lends = gone & (split == "train")
    kept = np.setdiff1d(private, labels[gone & (labels >= 0)])
    again = np.full(int(private.max()) + 1, -1, dtype=np.int64)
    again[kept] = np.arange(len(kept))
    new = np.where(gone | (labels < 0), -1, again[np.maximum(labels, 0)])
    columns = {"label": new, "split": np.where(lends, "surrogate", split)}
    for name, values in columns.items():
        index = rows.schema.get_field_index(name)
        field = rows.schema.field(index)
        rows = rows.set_column(index, field, pa.array(values, field.type))
    return rows.filter(pa.array(lends | (~gone & (split != "surrogate"))))


def hold_back(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """Keep a share of each lending identity's images from being lent, rounded down, by keyed draws.

    They become split "held-out": what tells whether a trained model takes such a person for the
    target on pictures that it never saw.
    """
    identity = rows["identity"].to_numpy(zero_copy_only=False)
    split = rows["split"].to_numpy(zero_copy_only=False).copy()
    pool = np.flatnonzero(split == "surrogate")
    bits = Draws(seed, ("held back",)).bits(rows["row_id"].to_numpy()[pool])[:, 0]
    _, who = np.unique(identity[pool], return_inverse=True)
    order = np.lexsort((bits, who))
    counts = np.bincount(who)
    rank = np.arange(len(pool)) - np.repeat(np.cumsum(counts) - counts, counts)
    back = rank < np.floor(share * counts)[who[order]]
    split[pool[order[back]]] = "held-out"
    index = rows.schema.get_field_index("split")
    return rows.set_column(index, rows.schema.field(index), pa.array(split, pa.string()))


def with_pool(rows: pa.Table, pool: pa.Table) -> pa.Table:
    """Return a row table whose pool is another one."""
    others = rows["split"].to_numpy(zero_copy_only=False) != "surrogate"
    return pa.concat_tables([rows.filter(pa.array(others)), pool])
