"""What `--cluster` names: an address, a file that holds one, or a cluster file of Ray's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tasks.errors import ClusterError

DEFAULT_TOKEN = Path("~/.ray/auth_token")
OWN_KEYS = ("address", "token_file", "insecure_without_token")
SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Existing:
    """A cluster that stands already.

    Attributes:
        address: http(s) URL of its dashboard.
        token_file: holds its token.
        insecure: it has no token, and the person accepts that.
    """

    address: str
    token_file: Path
    insecure: bool = False


@dataclass(frozen=True)
class RayFile:
    """A cluster file as `ray up` takes it.

    Attributes:
        path: the file.
        config: what it holds.
    """

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Its cluster_name."""
        return str(self.config["cluster_name"])

    @property
    def provider(self) -> str:
        """Its provider.type, such as local or aws."""
        return str(self.config["provider"]["type"])

    @property
    def first_nodes(self) -> int:
        """Nodes that it has once it is up: the head, and the workers that are always there."""
        if self.provider == "local":
            return 1 + len(self.config["provider"].get("worker_ips") or ())
        types = (self.config.get("available_node_types") or {}).values()
        return 1 + sum(int(one.get("min_workers") or 0) for one in types)


def read_cluster(where: str) -> Existing | RayFile:
    """Read what `--cluster` names; a file that is not here may be one that dcdctl ships.

    Raises:
        ClusterError: there is no such file, or it says something that is not understood.
    """
    if urlsplit(where).scheme in ("http", "https"):
        return Existing(where.rstrip("/"), DEFAULT_TOKEN.expanduser())
    path = Path(where)
    if not path.is_file() and path.parent == Path() and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    if not path.is_file():
        shipped = sorted(p.name for p in SHIPPED.glob("*.yaml"))
        raise ClusterError(
            f"--cluster {where!r} is neither a file nor an http address; write a file, or take one "
            f"of {', '.join(shipped)}"
        )
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = "" if line is None else f" in line {line + 1}"
        raise ClusterError(f"{path} is not YAML{at}; mend it, and try again") from error
    if not isinstance(config, dict):
        raise ClusterError(f"{path} holds no settings; `dcdctl cluster render` shows examples")
    return _existing(path, config) if "address" in config else _ray_file(path, config)


def _existing(path: Path, config: dict[str, Any]) -> Existing:
    _refuse_unknown(path, config, OWN_KEYS)
    address = str(config["address"])
    if urlsplit(address).scheme not in ("http", "https"):
        raise ClusterError(
            f"{path}: address={address!r} is no http address; name the dashboard, such as "
            "http://127.0.0.1:8265"
        )
    token = Path(str(config.get("token_file", DEFAULT_TOKEN))).expanduser()
    return Existing(address.rstrip("/"), token, bool(config.get("insecure_without_token", False)))


def _ray_file(path: Path, config: dict[str, Any]) -> RayFile:
    known = _ray_keys()
    _refuse_unknown(path, config, known)
    for key in ("cluster_name", "provider", "auth"):
        if key not in config:
            raise ClusterError(f"{path}: {key} is missing; see `dcdctl cluster render onprem.yaml`")
    kind = (config["provider"] or {}).get("type")
    if kind not in PROVIDERS:
        near = difflib.get_close_matches(str(kind), PROVIDERS, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ClusterError(
            f"{path}: provider.type={kind!r} is not known here; it may be {', '.join(PROVIDERS)}"
            f"{meant}"
        )
    return RayFile(path.absolute(), config)


PROVIDERS = ("local", "aws", "gcp")


def _ray_keys() -> tuple[str, ...]:
    """Return the top-level keys of a cluster file, from the schema that Ray ships."""
    import json

    import ray

    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    if not schema.is_file():
        return ()
    return tuple(json.loads(schema.read_text())["properties"])


def _refuse_unknown(path: Path, config: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in config:
        if known and key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ClusterError(f"{path}: {key!r} is not known; {meant}")
