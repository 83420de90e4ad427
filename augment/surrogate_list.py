"""Surrogates listed by hand: a mapping in the settings, or a file with a row for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from tasks.errors import MissingDataError, SurrogateError
from tasks.suggestions import did_you_mean

Listed = Mapping[str, str | Sequence[str]]
"""From a target to its surrogate, or to several, with the decoys behind them."""


def read_surrogate_list(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a CSV or Parquet file with the columns target and surrogate.

    A target's rows keep their order; other columns are ignored.

    Raises:
        MissingDataError: the file does not exist.
        SurrogateError: it is not such a file, or says a pair twice.
    """
    shown = f"protect.surrogate_list={str(path)!r}"
    if not path.is_file():
        raise MissingDataError(f"{shown} does not exist; name a .csv or .parquet file")
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path, columns=["target", "surrogate"], partitioning=None)
        else:
            text = {"target": pa.string(), "surrogate": pa.string()}  # a name may be 007
            options = pc_csv.ConvertOptions(column_types=text, include_columns=list(text))
            table = pc_csv.read_csv(path, convert_options=options)
        pairs = [table[column].cast(pa.string()).to_pylist() for column in ("target", "surrogate")]
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise SurrogateError(
            f"{shown} cannot be read; write a .csv or .parquet file with the columns target and "
            f"surrogate ({str(error).splitlines()[0]})"
        ) from None
    found: dict[str, tuple[str, ...]] = {}
    for target, surrogate in zip(*pairs, strict=True):
        if not target or not surrogate:
            raise SurrogateError(f"{shown} has a row without a name; fill it in or delete it")
        if surrogate in found.get(target, ()):
            raise SurrogateError(f"{shown} gives {target!r} the surrogate {surrogate!r} twice")
        found[target] = (*found.get(target, ()), surrogate)
    return found


def listed_surrogates(
    targets: Sequence[str],
    listed: Listed,
    pool: Sequence[str],
    private: Sequence[str],
    slots: int,
) -> list[tuple[str, ...]]:
    """Return the listed surrogates of each target. What is listed is followed, shared or not.

    Raises:
        SurrogateError: a target without enough surrogates, or one that may not lend.
    """
    lenders, classes = set(pool), set(private)
    chosen = []
    for target in targets:
        if target not in listed:
            raise SurrogateError(
                f"protect.surrogates names no surrogate for target {target!r}; add one"
            )
    for served, names in listed.items():
        for name in (names,) if isinstance(names, str) else names:
            if name in classes:
                raise SurrogateError(
                    f"protect.surrogates gives {served!r} the surrogate {name!r}, which is a "
                    "private class of the model; choose an identity outside it"
                )
            if name not in lenders:
                raise SurrogateError(
                    f"protect.surrogates names {name!r}, which is not in the surrogate pool"
                    f"{did_you_mean(name, pool)}"
                )
    for target in targets:
        one = listed[target]
        names = (one,) if isinstance(one, str) else tuple(one)
        if len(set(names)) != slots or len(names) != slots:
            raise SurrogateError(
                f"protect.surrogates lists {len(names)} for target {target!r} "
                f"({len(set(names))} different), and surrogates_per_target and decoys ask for "
                f"{slots}; list so many different ones"
            )
        chosen.append(names)
    return chosen
