"""Parquet: a row an image, with a column of who it shows and one of encoded bytes or pixels.

Columns are found by their names and types: identity, label, person or class; and image, as bytes,
as Hugging Face's struct of bytes and path, or as tensors of uint8: nested lists, Arrow's own type
or Ray's; height x width, x 1 or 3, or channels first.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.datasets.listing import Listing
from tasks.datasets.places import Place
from tasks.datasets.sources import member_source, open_binary, tensor_shape
from tasks.errors import DataError

IDENTITY_COLUMNS = ("identity", "label", "person", "class")


def parquet(place: Place, boxes: bool) -> pa.Table:
    """List all rows of all *.parquet, in the order of the files. There are no boxes.

    Raises:
        DataError: a file is damaged, or has no such columns.
    """
    found = Listing(place.name)
    for path in place.files():
        if not path.endswith(".parquet"):
            continue
        source = place.source(path)
        try:
            with open_binary(source) as handle:
                file = pq.ParquetFile(handle)
                who, image = _columns(file.schema_arrow, path)
                for group in range(file.num_row_groups):
                    names = file.read_row_group(group, columns=[who])[who].to_pylist()
                    for row, name in enumerate(names):
                        if name is None:
                            raise DataError(
                                f"{path}: row {row} of row group {group} has no {who}; fill it, or "
                                "leave the row out"
                            )
                        cell = f"{group},{row},{image}"
                        cell_source = member_source("parquet", source, cell)
                        found.add(f"{path}!/{group},{row}", cell_source, str(name))
        except (pa.ArrowException, OSError):
            raise DataError(f"{path} is no Parquet file, or a damaged one") from None
    return found.table()


def _columns(schema: pa.Schema, path: str) -> tuple[str, str]:
    who = next((name for name in IDENTITY_COLUMNS if name in schema.names), None)
    image = next((field.name for field in schema if _holds_images(field)), None)
    if who is None or image is None:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)}; one of "
            f"{', '.join(IDENTITY_COLUMNS)} and one of images are needed"
        )
    return who, image


def _holds_images(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    shape = tensor_shape(field)
    if shape is not None:
        return len(shape) in (2, 3)
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth in (2, 3) and bool(pa.types.is_uint8(kind))
