"""The built-in people of a seed, for benchmarks that train on them."""

from __future__ import annotations

import tempfile
from dataclasses import replace

from clusters.embedded import embedded_ray
from orchestrator.config import load_spec
from orchestrator.selection import select
from orchestrator.store import Store
from orchestrator.trial import World
from orchestrator.world_stage import prepare_world


def drawn_world(seed: int) -> World:
    """Return what trials share, in memory alone."""
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec(None, [f"storage={folder}", f"seed={seed}"])
        store = Store(spec.storage)
        with store.locked(), embedded_ray(2):
            world = prepare_world(spec, store, select(spec), lambda *_: None)
        return replace(world, images=world.images.copy())
