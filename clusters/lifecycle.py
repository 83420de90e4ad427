"""Bring a cluster up or join one that stands, and take it down again; every wait has a deadline."""

from __future__ import annotations

import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from clusters.cluster_file import DEFAULT_TOKEN, Existing, RayFile, read_cluster
from clusters.handle import ClusterHandle
from clusters.token import own_token
from tasks.errors import ClusterError

DASHBOARD_PORT = 8265
_SSH = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"),
    *("-o", "StrictHostKeyChecking=accept-new", "-o", "ExitOnForwardFailure=yes"),
)
_ASKS_S = 10.0
NODES_S = 300.0
"""How long a cluster that was just brought up is given for its first nodes."""

Say = Callable[[str], None]


def _quiet(text: str) -> None:
    """Say nothing."""


@contextmanager
def open_cluster(
    where: str, *, deadline_s: float = 900, insecure: bool = False, say: Say = _quiet
) -> Iterator[ClusterHandle]:
    """Join a cluster, after bringing it up where `where` is a cluster file of Ray's.

    The cluster stays up afterwards.

    Args:
        where: file or http address.
        deadline_s: seconds until it has to answer.
        insecure: go on where it asks for no token.
        say: called with what is being waited for.

    Raises:
        ClusterError: it cannot be reached, refuses, or does not fit.
    """
    cluster = read_cluster(where)
    if isinstance(cluster, RayFile):
        bring_up(cluster, deadline_s=deadline_s, say=say)
        say("waiting for the job server of the head")
    with joined(where, insecure=insecure) as handle:
        if isinstance(cluster, RayFile):
            _until_nodes(handle, cluster.first_nodes, say)
        yield handle


@contextmanager
def joined(where: str, *, insecure: bool = False) -> Iterator[ClusterHandle]:
    """Reach a cluster that is up already.

    Raises:
        ClusterError: it cannot be reached, refuses, or does not fit.
    """
    cluster = read_cluster(where)
    if isinstance(cluster, Existing):
        token = cluster.token_file if cluster.token_file.is_file() else None
        handle = ClusterHandle(cluster.address, cluster.address, token, cluster.address)
        check(handle, insecure=insecure or cluster.insecure)
        yield handle
        return
    with _tunnel(cluster, head_of(cluster)) as handle:
        _until_it_answers(handle, deadline_s=60)
        check(handle, insecure=insecure)
        yield handle


def check(handle: ClusterHandle, *, insecure: bool = False) -> None:
    """Refuse a cluster that is out of reach, open to everybody, or of another version.

    Raises:
        ClusterError: one of these, in a sentence.
    """
    bare = _get(handle, "/api/jobs/", {})
    if bare.status_code == 200 and not insecure:
        raise ClusterError(
            f"the cluster {handle.name} answers without a token: whoever reaches it can run code "
            "there; start it with RAY_AUTH_MODE=token, or accept that with --insecure-cluster"
        )
    if bare.status_code in (401, 403) and handle.token_file is None:
        raise ClusterError(
            f"the cluster {handle.name} asks for a token, and there is none in {DEFAULT_TOKEN}; "
            "put the cluster's there, or name its file as token_file in a cluster file"
        )
    answer = _get(handle, "/api/version", handle.headers())
    if answer.status_code in (401, 403) or (
        _get(handle, "/api/jobs/", handle.headers()).status_code in (401, 403)
    ):
        raise ClusterError(
            f"the cluster {handle.name} refuses the token in {handle.token_file}; take the one "
            "that it was started with"
        )
    _check_versions(handle, answer)


def _check_versions(handle: ClusterHandle, answer: requests.Response) -> None:
    """Refuse a cluster whose Ray is another one, or whose Python is of another minor version."""
    import ray

    try:
        found = {"Ray": str(answer.json()["ray_version"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"{handle.jobs_url} is no Ray dashboard (status {answer.status_code}); name the "
            "address of the dashboard, such as http://127.0.0.1:8265"
        ) from error
    own = {"Ray": ray.__version__, "Python": platform.python_version()}
    if found["Ray"] == own["Ray"]:
        metadata = _get(handle, "/api/v0/cluster_metadata", handle.headers())
        try:
            found["Python"] = str(metadata.json()["data"]["pythonVersion"])
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"the cluster {handle.name} does not say which Python it runs (status "
                f"{metadata.status_code}); wait until its dashboard is up, and try again"
            ) from error
    for what, there in found.items():
        # A patch of Python changes neither its language nor what is installed for it.
        parts = 2 if what == "Python" else None
        if there.split(".")[:parts] != own[what].split(".")[:parts]:
            raise ClusterError(
                f"the cluster {handle.name} runs {what} {there}, and here it is {own[what]}; "
                "install the same on both"
            )


def _get(handle: ClusterHandle, path: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(handle.jobs_url + path, headers=headers, timeout=_ASKS_S)
    except requests.RequestException as error:
        raise ClusterError(
            f"the cluster {handle.name} does not answer at {handle.jobs_url} "
            f"({type(error).__name__}); is it up, and is the address that of its dashboard?"
        ) from error


def _until_it_answers(handle: ClusterHandle, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while True:
        try:
            _get(handle, "/api/version", handle.headers())
            return
        except ClusterError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _nodes(handle: ClusterHandle) -> list[dict[str, Any]]:
    """Return what the dashboard says of each node, dead ones too."""
    answer = _get(handle, "/api/v0/nodes", handle.headers())
    try:
        found: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
    except (ValueError, KeyError, TypeError):
        return []  # a dashboard that has just started
    return found


def _until_nodes(handle: ClusterHandle, wanted: int, say: Say) -> None:
    """Wait for the nodes that a cluster begins with; some may be late, so go on without them."""
    end, told = time.monotonic() + NODES_S, -1
    while True:
        there = sum(node.get("state") == "ALIVE" for node in _nodes(handle))
        if there >= wanted:
            return
        if time.monotonic() > end:
            say(f"going on with {there} of {wanted} nodes; the others are not there yet")
            return
        if there != told:
            told = there
            say(f"waiting for nodes: {there} of {wanted}, at most {NODES_S:.0f} s")
        time.sleep(1)


def bring_up(cluster: RayFile, *, deadline_s: float, say: Say = _quiet) -> None:
    """Run `ray up`; a cluster that is up already stays as it is.

    Raises:
        ClusterError: it fails, or is not up in time.
    """
    own_token()
    _check_key(cluster)
    say(f"bringing up {cluster.name} (provider {cluster.provider}), at most {deadline_s:.0f} s")
    out = _ray("up", "--yes", "--no-config-cache", str(cluster.path), deadline_s=deadline_s)
    if out.returncode:
        raise ClusterError(f"{cluster.name} is not up: {_reason(out.stdout)}")


def head_of(cluster: RayFile) -> str:
    """Return the address of the head node.

    Raises:
        ClusterError: the cluster is not up.
    """
    out = _ray("get-head-ip", str(cluster.path), deadline_s=60)
    found = re.findall(r"^\d+\.\d+\.\d+\.\d+$", out.stdout, re.MULTILINE)
    if out.returncode or not found:
        raise ClusterError(
            f"{cluster.name} has no head that runs ({_reason(out.stdout)}); bring it up: dcdctl "
            f"cluster up {cluster.path}"
        )
    return str(found[-1])


def bring_down(where: str, *, deadline_s: float = 600, say: Say = _quiet) -> None:
    """Take a cluster down, workers included.

    `ray down` leaves the workers of provider local running: they are stopped one by one.

    Raises:
        ClusterError: it fails, or `where` is no cluster file.
    """
    cluster = read_cluster(where)
    if isinstance(cluster, Existing):
        raise ClusterError(
            f"{where} names a cluster that stands without dcdctl; take it down where it was started"
        )
    if cluster.provider == "local":
        for address in cluster.config["provider"].get("worker_ips", ()):
            say(f"stopping {address}")
            _ssh(cluster, str(address), "bash -lc 'ray stop --grace-period 10'", deadline_s=60)
    say(f"taking down {cluster.name}")
    out = _ray("down", "--yes", str(cluster.path), deadline_s=deadline_s)
    if out.returncode:
        raise ClusterError(f"{cluster.name} may still be up: {_reason(out.stdout)}")


def cluster_status(where: str, *, insecure: bool = False) -> list[str]:
    """Return in lines the nodes and jobs of a cluster that is up; it is not brought up for that.

    Raises:
        ClusterError: it is not up, or refuses.
    """
    from clusters.jobs import Jobs

    with joined(where, insecure=insecure) as handle:
        found = _nodes(handle)
        lines = [f"{handle.name}: head {handle.head}"]
        for node in found:
            total = node.get("resources_total", {})
            parts = [f"{total.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU") if kind in total]
            lines.append(f"  node {node['node_ip']:<16} {node['state']:<6} {', '.join(parts)}")
        jobs = Jobs(handle)
        return lines + [f"  job  {name}  {jobs.status(name)[0].lower()}" for name in jobs.names()]


def _check_key(cluster: RayFile) -> None:
    key = cluster.config["auth"].get("ssh_private_key")
    if key and not Path(str(key)).expanduser().is_file():
        raise ClusterError(
            f"{cluster.path}: auth.ssh_private_key={str(key)!r} does not exist; name the key that "
            "opens the nodes"
        )


def _ssh(cluster: RayFile, address: str, command: str, deadline_s: float) -> None:
    words = [*ssh_words(cluster, address), command]
    try:
        subprocess.run(words, capture_output=True, timeout=deadline_s, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"{address} did not stop its Ray in {deadline_s:.0f} s; stop it there: ray stop"
        ) from None


def ssh_words(cluster: RayFile, address: str, *more: str) -> list[str]:
    """Return the command that enters a node of a cluster, as its file says."""
    auth = cluster.config["auth"]
    key = auth.get("ssh_private_key")
    identity = ["-i", str(Path(str(key)).expanduser())] if key else []
    return ["ssh", *_SSH, *identity, *more, f"{auth['ssh_user']}@{address}"]


@contextmanager
def _tunnel(cluster: RayFile, head: str) -> Iterator[ClusterHandle]:
    """Have the head's dashboard, which listens on its loopback alone, on a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forward = f"127.0.0.1:{port}:127.0.0.1:{DASHBOARD_PORT}"
    process = subprocess.Popen(
        ssh_words(cluster, head, "-N", "-L", forward),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the command, not for its tunnel
    )
    try:
        yield ClusterHandle(cluster.name, f"http://127.0.0.1:{port}", own_token(), head)
    finally:
        process.terminate()
        process.wait()


def _ray(*words: str, deadline_s: float) -> subprocess.CompletedProcess[str]:
    """Run Ray's own command; its output is for `_reason`."""
    command = [sys.executable, "-m", "ray.scripts.scripts", *words]
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        raise ClusterError(
            f"`{shlex.join(['ray', *words])}` was not done in {deadline_s:.0f} s; it last said: "
            f"{_reason(said)}"
        ) from error


def _reason(output: str) -> str:
    """Return the line of an output that says most: the last error, else the last line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|denied|refused|fail", line, re.I)]
    return (errors or lines or ["it said nothing"])[-1][:300]
