"""What a cluster file of Ray's may say: Ray's own schema, and what it leaves open and we need."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PROVIDERS = ("local", "aws", "gcp")

_NEEDED = {
    "local": ("head_ip", "worker_ips"),
    "aws": ("region",),
    "gcp": ("region", "availability_zone", "project_id"),
}
"""Keys of provider without which Ray cannot begin."""

_OF_PROVIDER = {
    "local": ("head_ip", "worker_ips", "external_head_ip"),
    "aws": ("region", "availability_zone", "security_group", "cloudwatch", "aws_credentials"),
    "gcp": ("region", "availability_zone", "project_id", "gcp_credentials"),
}
_OF_ALL = ("type", "use_internal_ips", "disable_node_updaters") + (
    *("cache_stopped_nodes", "use_external_head_ip", "disable_launch_config_check"),
    *("foreground_node_launch", "worker_liveness_check", "worker_rpc_drain"),
)
"""Keys of provider that Ray reads; its schema takes any, so that a typo would be passed over."""


def top_keys() -> tuple[str, ...]:
    """Return the top-level keys of a cluster file; nothing where this Ray ships no schema."""
    return tuple(_schema().get("properties", ()))


def faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a cluster file, a sentence each, the plainest first."""
    for key in ("cluster_name", "provider", "auth"):
        if key not in config:
            yield f"{key} is missing; see `dcdctl cluster render onprem.yaml`"
            return
    for key in ("provider", "auth"):
        if not isinstance(config[key], dict):
            yield f"{key}={config[key]!r} has to hold keys; see `dcdctl cluster render onprem.yaml`"
            return
    provider = config["provider"]
    kind = provider.get("type")
    if kind not in PROVIDERS:
        near = difflib.get_close_matches(str(kind), PROVIDERS, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        yield f"provider.type={kind!r} is not known here; it may be {', '.join(PROVIDERS)}{meant}"
        return
    yield from unknown("provider", provider, (*_OF_PROVIDER[kind], *_OF_ALL))
    for key in _NEEDED[kind]:
        if provider.get(key) in (None, ""):
            yield f"provider.{key} is missing; provider {kind} needs {', '.join(_NEEDED[kind])}"
    yield from _unlike_schema(config)
    if not config["auth"].get("ssh_user"):
        yield "auth.ssh_user is missing; name the account of the nodes"
    yield from _node_types(config, str(kind))


def unknown(place: str, found: Iterable[object], known: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each key that is not known, with the known one that was meant."""
    allowed = tuple(known)
    for key in found:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(allowed)}"
            yield f"{place + '.' if place else ''}{key} is not known; {meant}"


def _node_types(config: Mapping[str, Any], kind: str) -> Iterator[str]:
    types = config.get("available_node_types")
    if kind == "local":
        if types:
            yield "available_node_types is not for provider local; its machines are its node types"
        return
    if not isinstance(types, dict) or not types:
        yield f"available_node_types is missing; see `dcdctl cluster render {kind}.yaml`"
        return
    head = config.get("head_node_type")
    if head not in types:
        near = difflib.get_close_matches(str(head), map(str, types), 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        yield (
            f"head_node_type={head!r} is none of available_node_types ({', '.join(types)}){meant}"
        )


def _unlike_schema(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what Ray's schema does not allow, below the first level of keys."""
    from jsonschema import Draft7Validator

    if not _schema():
        return
    errors = Draft7Validator(_schema()).iter_errors(config)
    for error in sorted(errors, key=lambda one: [str(step) for step in one.absolute_path]):
        place = ".".join(str(step) for step in error.absolute_path)
        match error.validator:
            case "additionalProperties":
                known = list(error.schema.get("properties", {}))
                yield from unknown(place, error.instance, known)
            case "required":
                missing = [key for key in error.validator_value if key not in error.instance]
                yield f"{place}: {', '.join(missing)} is missing"
            case "type":
                wanted = error.validator_value
                wanted = " or ".join(wanted) if isinstance(wanted, list) else wanted
                value = repr(error.instance)[:60]
                yield f"{place}={value} has to be of type {wanted}"
            case _:
                yield f"{place}: {error.message[:200]}"


@functools.cache
def _schema() -> dict[str, Any]:
    """Return the schema that Ray ships."""
    from importlib.util import find_spec

    found = find_spec("ray")
    if found is None or found.origin is None:
        return {}
    path = Path(found.origin).parent / "autoscaler" / "ray-schema.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}
