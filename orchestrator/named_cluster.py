"""What a cluster file promises a plan: its nodes, how soon they come up, and what they cost."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.placement import Capacity
from orchestrator.prices import LABEL, NodePrice, node_price
from tasks.errors import SpecError

CLOUD_START_S = (60.0, 240.0)
"""From asking for a machine to its first work; no cloud promises a time."""

LOCAL_START_S = (20.0, 40.0)
"""`ray up` over SSH on hosts that run already (docs/clusters.md)."""


@dataclass(frozen=True)
class NodeKind:
    """Nodes of one kind.

    Attributes:
        name: in the file.
        cores: of one.
        gpus: of one.
        least: that are there from the beginning.
        most: that the cluster grows to.
        price: of one that trials run on; None where the file names none.
        hour: what one costs for an hour, also where no trial runs on it.
    """

    name: str
    cores: float
    gpus: float
    least: int
    most: int
    price: NodePrice | None = None
    hour: float | None = None


@dataclass(frozen=True)
class NamedCluster:
    """Where a search would run.

    Attributes:
        name: for people.
        kinds: its nodes, the head's first.
        start_s: until it works, between these.
        notes: what had to be assumed.
        here: it is this machine.
    """

    name: str
    kinds: tuple[NodeKind, ...]
    start_s: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()
    here: bool = False

    @property
    def gpus(self) -> bool:
        """Whether trials hold GPUs."""
        return any(kind.gpus for kind in self.kinds)

    def nodes(self, wanted: float | None) -> list[NodeKind]:
        """Return the nodes that a search uses: those that are there, and what it grows to.

        Args:
            wanted: devices that it asks for at once; None asks for no more than there are.
        """
        found = [kind for kind in self.kinds for _ in range(kind.least)]
        devices = sum(self.devices(kind) for kind in found)
        for kind in self.kinds:
            for _ in range(kind.most - kind.least):
                if self.devices(kind) and (not devices or (wanted or 0) > devices):
                    found.append(kind)
                    devices += self.devices(kind)
        return found

    def devices(self, kind: NodeKind) -> float:
        """Return what one node gives a search: GPUs where the cluster has any, else cores."""
        return kind.gpus if self.gpus else kind.cores

    def capacity(self, wanted: float | None) -> Capacity:
        """Return what the nodes have together."""
        nodes = self.nodes(wanted)
        return Capacity(sum(n.cores for n in nodes), sum(n.gpus for n in nodes))


def this_machine(cpus: int | None) -> NamedCluster:
    """Return this machine as a cluster of one node."""
    import torch

    cores = float(cpus or os.cpu_count() or 1)
    gpus = float(torch.cuda.device_count())
    return NamedCluster("this machine", (NodeKind("here", cores, gpus, 1, 1),), here=True)


def named_cluster(where: str) -> NamedCluster:
    """Read a cluster file, or one of those that dcdctl ships.

    Raises:
        ClusterError: there is no such file, or it is none.
        SpecError: it names no nodes, or a price that is none.
    """
    from clusters.cluster_file import Existing, read_cluster

    found = read_cluster(where)
    if isinstance(found, Existing):
        raise SpecError(
            f"--cluster {where} names an address, and a plan needs to know the nodes: name a "
            "cluster file with available_node_types"
        )
    config = found.config
    kinds = [
        _kind(str(name), dict(kind or {}), str(name) == config.get("head_node_type"))
        for name, kind in (config.get("available_node_types") or {}).items()
    ]
    kinds.sort(key=lambda kind: kind.name != config.get("head_node_type"))
    notes = [] if found.provider == "local" else ["its machines come up in 1 to 4 minutes"]
    if not kinds:
        cores = float(os.cpu_count() or 1)
        kinds = [NodeKind("host", cores, 0.0, found.first_nodes, found.first_nodes)]
        notes.append(
            f"{Path(where).name} does not say what its hosts have: {cores:g} cores each are assumed"
        )
    if all(kind.price is None for kind in kinds):
        notes.append(f"{Path(where).name} names no price; label its node types with {LABEL}")
    start = LOCAL_START_S if found.provider == "local" else CLOUD_START_S
    return NamedCluster(Path(where).name, tuple(kinds), start, tuple(notes))


def _kind(name: str, kind: dict[str, Any], head: bool) -> NodeKind:
    resources = {str(k): float(v) for k, v in (kind.get("resources") or {}).items()}
    least = 1 if head else int(kind.get("min_workers") or 0)
    most = 1 if head else max(least, int(kind.get("max_workers") or 0))
    labels = kind.get("labels") or {}
    whole = node_price(name, labels, {"CPU": 1.0})  # a head without cores for trials costs too
    return NodeKind(
        name,
        resources.get("CPU", 0.0),
        resources.get("GPU", 0.0),
        least,
        most,
        node_price(name, labels, resources),
        None if whole is None else whole.hour,
    )
