"""What is looked at before a cluster is brought up, so that what cannot work is said at once.

`ray up` asks a machine that does not answer again for a quarter of an hour, and one that it is not
let into just as long. The same questions, asked of all machines at once, take seconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from clusters.aws import aws_faults
from clusters.cluster_file import RayFile
from clusters.ssh import ask
from tasks.errors import ClusterError

PROBE_S = 45.0
"""Seconds that a machine may take to say what it has."""

_MARK = "DCDCTL "
_FIND = f"""\
command -v rsync >/dev/null || {{ echo '{_MARK}{{"missing": "rsync"}}'; exit 0; }}
ray=$(command -v ray) || {{ echo '{_MARK}{{"missing": "ray"}}'; exit 0; }}
python=$(sed -n '1s/^#! *\\([^ ]*\\).*/\\1/p' "$ray")
case $python in *python*|*pypy*) ;; *) python=$(dirname "$ray")/python3 ;; esac
[ -x "$python" ] || python=python3
exec "$python" -
"""
"""Finds the Python under which Ray runs there, and has it run what comes in."""

_PROBE = """\
import json, sys
try:
    from importlib import metadata
except ImportError:
    metadata = None
found = {"python": "%%d.%%d" %% sys.version_info[:2], "packages": {}}
for name in %s if metadata else ():
    try:
        found["packages"][name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print("DCDCTL " + json.dumps(found))
"""
_EXAMPLES = re.compile(r"198\.51\.100\.\d+|[a-z]+-0123456789abcdef0|\bmy-project\b")
_INSTALLS = re.compile(r"\b(install|conda|uv|poetry|apt|dnf|yum|mamba|module load)\b")


def look(cluster: RayFile, *, insecure: bool = False) -> list[str]:
    """Look at what a cluster file needs before money is spent on it.

    Args:
        cluster: the file.
        insecure: its nodes may go without a token.

    Returns:
        What cannot work, a sentence each; nothing where all is well.
    """
    if here := own_faults(cluster, insecure=insecure):
        return here
    if cluster.provider == "local":
        return hosts_faults(cluster)
    return aws_faults(cluster) if cluster.provider == "aws" else list(_gcp(cluster))


def refuse(cluster: RayFile, *, insecure: bool = False, here: bool = False) -> None:
    """Raise ClusterError where a cluster cannot come up.

    Args:
        cluster: the file.
        insecure: its nodes may go without a token.
        here: look at the file and at this machine alone.
    """
    found = own_faults(cluster, insecure=insecure) if here else look(cluster, insecure=insecure)
    if found:
        more = (
            f" (and {len(found) - 1} more: dcdctl cluster check {cluster.path})"
            if found[1:]
            else ""
        )
        raise ClusterError(f"{cluster.path}: {found[0]}{more}")


def own_faults(cluster: RayFile, *, insecure: bool) -> list[str]:
    """Return what is wrong with the file, and on this machine; nobody else is asked."""
    return list(_here(cluster, insecure=insecure))


def _here(cluster: RayFile, *, insecure: bool) -> Iterator[str]:
    config = cluster.config
    for number, line in enumerate(cluster.path.read_text().splitlines(), 1):
        if not line.lstrip().startswith("#") and (found := _EXAMPLES.search(line)):
            yield f"line {number} still has the example's {found[0]}; put your own in"
    for name in ("ssh", "rsync"):
        if shutil.which(name) is None:
            yield f"there is no `{name}` on this machine, and Ray needs it; install it"
    key = config["auth"].get("ssh_private_key")
    if key and not Path(str(key)).expanduser().is_file():
        yield f"auth.ssh_private_key={str(key)!r} does not exist; name the key that opens the nodes"
    for there, here in (config.get("file_mounts") or {}).items():
        if not Path(str(here)).expanduser().exists():
            yield f"file_mounts: {str(here)!r}, which goes to {there}, does not exist here"
    if insecure:
        return
    for kind, start in (("head", "ray start --head"), ("worker", "ray start --address")):
        lines = [str(one) for one in config.get(f"{kind}_start_ray_commands") or ()]
        if not any(start in line and "RAY_AUTH_MODE=token" in line for line in lines):
            yield (
                f"{kind}_start_ray_commands has no `{start}` with RAY_AUTH_MODE=token: whoever "
                "reaches that node could run code there; add it as in `dcdctl cluster render "
                f"{cluster.provider}.yaml`, or accept that with --insecure-cluster".replace(
                    "local.yaml", "onprem.yaml"
                )
            )
    if not any(str(there).endswith(".ray/auth_token") for there in config.get("file_mounts") or ()):
        yield "file_mounts has no ~/.ray/auth_token, so that the nodes would have no token; add it"


def hosts_faults(cluster: RayFile) -> list[str]:
    """Ask all machines of provider local at once; return a sentence for each that cannot work."""
    provider = cluster.config["provider"]
    outside = provider.get("external_head_ip") or provider["head_ip"]
    places = {str(outside): "provider.head_ip"}
    places |= {str(one): "provider.worker_ips" for one in provider["worker_ips"]}
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(partial(_host_fault, cluster), places))
    told = zip(places.items(), found, strict=True)
    return [f"{host} ({place}): {fault}" for (host, place), fault in told if fault]


def _host_fault(cluster: RayFile, host: str) -> str:
    """Return what is wrong with one machine, or nothing."""
    wanted = needed()
    answer = ask(cluster, host, _FIND, deadline_s=PROBE_S, text=_PROBE % (sorted(wanted),))
    if answer.fault:
        return answer.fault
    marked = [line for line in answer.output.splitlines() if line.startswith(_MARK)]
    if not marked:
        return "its shell did not run Python; look at what its ~/.bashrc and ~/.profile do"
    there: dict[str, Any] = json.loads(marked[-1].removeprefix(_MARK))
    # What the file installs on a node is not there yet.
    commands = cluster.config.get("setup_commands") or []
    commands = commands + (cluster.config.get("initialization_commands") or [])
    if cluster.config.get("docker") or any(_INSTALLS.search(str(one)) for one in commands):
        return ""
    return unlike(there, wanted)


def unlike(there: dict[str, Any], wanted: dict[str, str]) -> str:
    """Return how a machine differs from this one where that cannot work, or nothing."""
    if there.get("missing") == "rsync":
        return "it has no rsync, with which Ray sends files; install it there"
    if there.get("missing") == "ray":
        return (
            "there is no `ray` on the PATH of its login shell; install it there, or put it on the "
            "PATH in ~/.bashrc"
        )
    python = "{}.{}".format(*sys.version_info[:2])
    if there["python"] != python:
        return (
            f"Ray runs there under Python {there['python']}, and here it is {python}; use the same "
            "minor version on both"
        )
    packages: dict[str, str] = there["packages"]
    if packages.get("ray", wanted["ray"]) != wanted["ray"]:
        own = wanted["ray"]
        return f"it has Ray {packages['ray']}, and here it is {own}; install the same on both"
    if lacking := sorted(set(wanted) - set(packages)):
        return f"its Python lacks {', '.join(lacking)}; install there what is installed here"
    return ""


def needed() -> dict[str, str]:
    """Return what a job imports on a node, by package: the version that is here."""
    try:
        lines = importlib.metadata.requires("dcdctl") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    names = {re.split(r"[^\w.-]", line)[0] for line in lines if ";" not in line} | {"ray", "torch"}
    return {name: importlib.metadata.version(name) for name in names}


def _gcp(cluster: RayFile) -> Iterator[str]:
    """Yield what keeps Ray from asking Google at all; nothing there is looked at."""
    from importlib.util import find_spec

    if find_spec("googleapiclient") is None:
        yield "provider gcp needs `pip install google-api-python-client google-auth`"
        return
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError:
        yield "no credentials of Google were found; run: gcloud auth application-default login"
