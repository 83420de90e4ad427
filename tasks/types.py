"""The types that cross the borders between rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, NewType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ClassId = NewType("ClassId", int)
"""A label: the index of an output of the target classifier."""

IdentityId = NewType("IdentityId", str)
"""A person, as the data set names them. Never a label."""

Split = Literal["train", "test", "surrogate", "held-out", "public"]
"""train, test: private data. surrogate: pool of lent identities. held-out: theirs, and never lent.
public: what the attacker has."""

Image8 = npt.NDArray[np.uint8]
"""Images as stored: (n, height, width, 3), 0 to 255."""


class Bounds(NamedTuple):
    """Range of pixel values; every classifier and prior states its own."""

    low: float
    high: float


UNIT = Bounds(0.0, 1.0)

ROW_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),  # stable, unique in the data set
        pa.field("identity", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # ClassId; -1 for surrogate and public rows
        pa.field("split", pa.string(), nullable=False),  # one of Split
        pa.field("source", pa.string(), nullable=False),  # where the pixels are, as a URI
        pa.field("attributes", pa.list_(pa.string()), nullable=False),  # e.g. ["dark_hair"]
    ]
)
"""A row of a data set, without pixels (`RowTable`). Row i of the table is row i of `images`."""


@dataclass(frozen=True, slots=True)
class Lender:
    """An outside identity whose images borrow a target's label."""

    identity: IdentityId
    label: int
    """The evaluation classifier's extra class for it, num_classes or above."""


@dataclass(frozen=True, slots=True)
class TargetClass:
    """An identity under protection, and whose images borrow its label.

    Attributes:
        label: of the class.
        identity: who is protected.
        surrogates: whom an attack shall find instead; one in the paper.
        decoys: further outside identities, mislabelled like the target itself.
    """

    label: ClassId
    identity: IdentityId
    surrogates: tuple[Lender, ...]
    decoys: tuple[Lender, ...] = ()

    @property
    def lenders(self) -> tuple[Lender, ...]:
        """All outside identities under this label."""
        return self.surrogates + self.decoys
