"""One Ray for all tests of the room: starting it takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.ray_session import ray_session
from orchestrator.spec import ComputeSpec


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """Ray with two cores, on this machine."""
    with ray_session(ComputeSpec(cpus=2)):
        yield
