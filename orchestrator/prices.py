"""What an hour costs: one price for a device-hour, said in the settings or on the cluster's nodes.

A node's price stands in the cluster file as a label of its node type, which plain Ray knows:

    available_node_types:
      worker:
        resources: {CPU: 8, GPU: 1}
        labels: {dcdctl.io/hour-price: "0.526"}

Divided by the node's GPUs, or its cores where it has none, it is the price of a device-hour. Where
node types differ the highest counts, so that a limit on money holds wherever a trial lands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.budget import Limits
from orchestrator.spec import ComputeSpec
from tasks.errors import SpecError

LABEL = "dcdctl.io/hour-price"


@dataclass(frozen=True)
class NodePrice:
    """One kind of node: what an hour of it costs, and what it has."""

    name: str
    hour: float
    cores: float
    gpus: float

    @property
    def device_hour(self) -> float:
        """Price of one of its devices for an hour; its GPUs where it has any, else its cores."""
        return self.hour / (self.gpus or self.cores)


def node_price(
    name: str, labels: Mapping[str, Any], resources: Mapping[str, float]
) -> NodePrice | None:
    """Return a node's price; None where it names none, or runs nothing.

    Raises:
        SpecError: the label is no price.
    """
    text = labels.get(LABEL)
    cores, gpus = float(resources.get("CPU", 0)), float(resources.get("GPU", 0))
    if text is None or not (cores or gpus):
        return None
    try:
        hour = float(text)
    except ValueError:
        hour = -1.0
    if not 0 <= hour < float("inf"):
        raise SpecError(
            f'label {LABEL} of node {name!r} is {text!r} and must be a price such as "0.526"'
        )
    return NodePrice(name, hour, cores, gpus)


def file_prices(path: Path) -> list[NodePrice]:
    """Return the prices that a cluster file names, one a node type.

    Raises:
        SpecError: it is no cluster file.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
        kinds = dict(found.get("available_node_types") or {})
        prices = [
            node_price(name, kind.get("labels") or {}, kind.get("resources") or {})
            for name, kind in kinds.items()
        ]
    except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise SpecError(
            f"{path} is no cluster file ({str(error).splitlines()[0]}); name one as "
            "`dcdctl cluster render` shows it"
        ) from error
    return [price for price in prices if price is not None]


def running_prices() -> list[NodePrice]:
    """Return the prices on the nodes of the Ray cluster that this process has joined."""
    import ray

    if not ray.is_initialized():
        return []
    prices = [
        node_price(node["NodeID"][:8], node.get("Labels") or {}, node.get("Resources") or {})
        for node in ray.nodes()
        if node["Alive"]
    ]
    return [price for price in prices if price is not None]


def hour_price(compute: ComputeSpec, prices: Iterable[NodePrice] = ()) -> float | None:
    """Return the price of a device-hour: the setting's, else the highest of the nodes'."""
    if compute.hour_price is not None:
        return compute.hour_price
    return max((price.device_hour for price in prices), default=None)


def limits_of(compute: ComputeSpec, prices: Iterable[NodePrice] = ()) -> Limits:
    """Return what a search may spend.

    Raises:
        SpecError: money is limited, and nothing names a price.
    """
    price = hour_price(compute, prices)
    if compute.max_cost is not None and price is None:
        raise SpecError(
            f"compute.max_cost={compute.max_cost:g} needs a price: set compute.hour_price (of a "
            f"core or GPU for an hour), or label the node types of the cluster with {LABEL}"
        )
    return Limits(compute.max_hours, compute.max_cost, price)
