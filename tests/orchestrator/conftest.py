"""One Ray for all tests of the room: starting it takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusters.embedded import embedded_ray


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """Ray with two cores, on this machine."""
    with embedded_ray(2):
        yield
