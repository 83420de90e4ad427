"""Tables of the report that may have thousands of rows: columns, packed for the page's script."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Literal

from pydantic import Field

from tasks.spec import Spec

Cell = str | float | int | None


class DataColumn(Spec):
    """One column. A rate is kept as counts: its interval follows from them.

    Kinds: `text`, `number`, and rates of hits (`hits`: high is bad) or of right answers (`right`).
    """

    title: str
    group: str = ""
    kind: Literal["text", "number", "hits", "right"] = "text"
    values: tuple[Cell, ...] = Field((), description="Of text and numbers.")
    k: tuple[int | None, ...] = Field((), description="Of rates: hits, or right answers.")
    n: tuple[int | None, ...] = Field((), description="Of rates: tries, or images.")


class DataTable(Spec):
    """Columns of equal length; rows stand worst first."""

    name: str
    label: str
    columns: tuple[DataColumn, ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        first = self.columns[0] if self.columns else None
        return 0 if first is None else len(first.values) or len(first.k)


def packed(value: object) -> str:
    """Return JSON deflated and in base64, as the page's script unpacks it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
