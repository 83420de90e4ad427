"""What `--cluster` names: an address, a file that holds one, or a cluster file of Ray's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from clusters.ray_schema import faults, top_keys, unknown
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
        if not urlsplit(where).hostname:
            raise ClusterError(f"--cluster {where!r} names no host, such as http://127.0.0.1:8265")
        return Existing(where.rstrip("/"), DEFAULT_TOKEN.expanduser())
    path = find_file(where)
    config = read_config(path)
    if "laptop" in config:
        raise ClusterError(f"{path} is this machine: leave --cluster out")
    if config.get("kind") == "RayJob":
        raise ClusterError(
            f"{path} is a RayJob of KubeRay: start it with kubectl apply -f {path}, and name the "
            "address of its dashboard (kubectl port-forward) as --cluster"
        )
    return _existing(path, config) if "address" in config else _ray_file(path, config)


def find_file(where: str) -> Path:
    """Return a cluster file: the one that is named, or else the one of this name that is shipped.

    Raises:
        ClusterError: there is neither.
    """
    path = Path(where)
    if not path.is_file() and path.parent == Path() and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    if not path.is_file():
        shipped = sorted(p.name for p in SHIPPED.glob("*.yaml"))
        raise ClusterError(
            f"--cluster {where!r} is neither a file nor an http address; write a file, or take one "
            f"of {', '.join(shipped)}"
        )
    return path


def read_config(path: Path) -> dict[str, Any]:
    """Return what a cluster file holds.

    Raises:
        ClusterError: it is no YAML, or holds no settings.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ClusterError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = "" if line is None else f" in line {line + 1}"
        raise ClusterError(f"{path} is not YAML{at}; mend it, and try again") from error
    if not isinstance(config, dict):
        raise ClusterError(f"{path} holds no settings; `dcdctl cluster render` shows examples")
    return config


def _existing(path: Path, config: dict[str, Any]) -> Existing:
    for sentence in unknown("", config, OWN_KEYS):
        raise ClusterError(f"{path}: {sentence}")
    address = str(config["address"])
    if urlsplit(address).scheme not in ("http", "https"):
        raise ClusterError(
            f"{path}: address={address!r} is no http address; name the dashboard, such as "
            "http://127.0.0.1:8265"
        )
    token = Path(str(config.get("token_file", DEFAULT_TOKEN))).expanduser()
    return Existing(address.rstrip("/"), token, bool(config.get("insecure_without_token", False)))


def _ray_file(path: Path, config: dict[str, Any]) -> RayFile:
    known = (*top_keys(), "address") if top_keys() else config
    for sentence in (*unknown("", config, known), *faults(config)):
        raise ClusterError(f"{path}: {sentence}")
    return RayFile(path.absolute(), config)
