"""Layouts of published data sets. A layout only lists; `selection` chooses who is private.

Each takes a place and says who is on which image; `boxes` asks for the annotated boxes too.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from tasks.datasets.layouts.celeba import celeba
from tasks.datasets.layouts.facescrub import facescrub
from tasks.datasets.layouts.ffhq import ffhq
from tasks.datasets.layouts.gtsrb import gtsrb
from tasks.datasets.layouts.imagefolder import imagefolder
from tasks.datasets.layouts.parquet import parquet
from tasks.datasets.layouts.stanford_dogs import stanford_dogs
from tasks.datasets.layouts.tsrd import tsrd
from tasks.datasets.layouts.vggface2 import vggface2
from tasks.datasets.layouts.webdataset import webdataset
from tasks.datasets.places import Place

Layout = Callable[[Place, bool], pa.Table]
"""Lists the images of a place as a table of LISTING_SCHEMA."""

LAYOUTS: dict[str, Layout] = {
    "imagefolder": imagefolder,
    "celeba": celeba,
    "facescrub": facescrub,
    "vggface2": vggface2,
    "ffhq": ffhq,
    "gtsrb": gtsrb,
    "tsrd": tsrd,
    "stanford-dogs": stanford_dogs,
    "parquet": parquet,
    "webdataset": webdataset,
}
