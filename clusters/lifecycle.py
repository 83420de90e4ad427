"""Bring a cluster up or join one that stands, and take it down again; every wait has a deadline."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests

from clusters.aws import machines
from clusters.cluster_file import DEFAULT_TOKEN, Existing, RayFile, read_cluster
from clusters.handle import ClusterHandle
from clusters.preflight import refuse
from clusters.ray_command import reason, run_ray
from clusters.ssh import Tunnel, tunnel
from clusters.stop import running_hosts, stop_hosts
from clusters.token import own_token
from tasks.errors import ClusterError

_ASKS_S = 10.0
STANDS_S = 20.0
"""How long a head that should be up already is given to answer."""

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

    One that is up already is joined as it is: `ray up` would end the jobs that run there. It
    stays up afterwards.

    Args:
        where: file or http address.
        deadline_s: seconds until it has to answer.
        insecure: go on where it asks for no token.
        say: called with what is being waited for.

    Raises:
        ClusterError: it cannot be reached, refuses, or does not fit; one that did not come up is
            taken down again.
        KeyboardInterrupt: Ctrl-C; its words say what stays up.
    """
    cluster = read_cluster(where)
    if isinstance(cluster, RayFile):
        own_token()
        refuse(cluster, insecure=insecure, here=True)
        if stands(cluster):
            say(f"{cluster.name} is up already, and is used as it is")
        else:
            bring_up(cluster, deadline_s=deadline_s, insecure=insecure, say=say)
        say("waiting for the job server of the head")
    with joined(where, insecure=insecure) as handle:
        if isinstance(cluster, RayFile):
            try:
                _until_nodes(handle, cluster.first_nodes, say)
            except KeyboardInterrupt:
                raise _interrupted(cluster, _left(cluster)) from None
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
    with tunnel(cluster, head_of(cluster)) as way:
        handle = _handle(way)
        _until_it_answers(handle, way, deadline_s=60)
        check(handle, insecure=insecure)
        yield handle


def stands(cluster: RayFile) -> bool:
    """Say whether a cluster is up, and its job server answers.

    Raises:
        ClusterError: its head cannot be reached, or does not let one in.
    """
    head = _known_head(cluster)
    if not head:
        return False
    with tunnel(cluster, head) as way:
        handle = _handle(way)
        try:
            _until_it_answers(handle, way, deadline_s=STANDS_S, closed_is_final=True)
        except ClusterError:
            if cluster.provider == "local":
                way.check()
            return False
    return True


def _known_head(cluster: RayFile) -> str | None:
    """Return where a head is, or would be; empty where there is none, None where Ray has to say."""
    provider = cluster.config["provider"]
    if cluster.provider == "local":
        return str(provider.get("external_head_ip") or provider["head_ip"])
    if cluster.provider == "aws":
        with suppress(Exception):  # what keeps AWS from answering is said when it is asked next
            return next((m.address for m in machines(cluster) if m.kind == "head"), "")
    return None


def _handle(way: Tunnel) -> ClusterHandle:
    url = f"http://127.0.0.1:{way.port}"
    return ClusterHandle(way.cluster.name, url, own_token(), way.head)


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


def _until_it_answers(
    handle: ClusterHandle, way: Tunnel, deadline_s: float, *, closed_is_final: bool = False
) -> None:
    """Wait for the dashboard behind a tunnel.

    Args:
        handle: the cluster.
        way: the tunnel.
        deadline_s: seconds.
        closed_is_final: do not wait for a dashboard where SSH is through and nobody listens.
    """
    end = time.monotonic() + deadline_s
    while True:
        way.check()
        try:
            _get(handle, "/api/version", handle.headers())
            return
        except ClusterError as error:
            # The near end listens once SSH is through; then a cut is the far end's.
            closed = not isinstance(error.__cause__, requests.Timeout) and way.is_through()
            if time.monotonic() > end or (closed_is_final and closed):
                raise
            time.sleep(0.3)


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


def bring_up(
    cluster: RayFile, *, deadline_s: float, insecure: bool = False, say: Say = _quiet
) -> None:
    """Run `ray up`; what it started is taken down again where it fails.

    Args:
        cluster: the file; of one that is up already, Ray is started anew, and jobs end.
        deadline_s: seconds that it may take.
        insecure: its nodes may go without a token.
        say: called with what is being done.

    Raises:
        ClusterError: it cannot work, fails, or is not up in time.
        KeyboardInterrupt: Ctrl-C; its words say what stays up.
    """
    own_token()
    say(f"looking at what {cluster.name} needs")
    refuse(cluster, insecure=insecure)
    before = _left(cluster)
    say(f"bringing up {cluster.name} (provider {cluster.provider}), at most {deadline_s:.0f} s")
    try:
        out = run_ray("up", "--yes", "--no-config-cache", str(cluster.path), deadline_s=deadline_s)
        if out.returncode:
            raise ClusterError(f"{cluster.name} is not up: {reason(out.stdout)}")
    except ClusterError as error:
        if before:  # it was there before this command; whose work runs on it is not known
            raise ClusterError(f"{error}; {_listed(before)} was there before, and stays") from error
        say(f"it did not come up; taking down what was started of {cluster.name}")
        try:
            bring_down(str(cluster.path), say=say)
        except ClusterError as more:
            raise ClusterError(f"{error}; and {more}") from error
        raise ClusterError(f"{error}; what was started is down again") from error
    except KeyboardInterrupt:
        raise _interrupted(cluster, _left(cluster)) from None


def _interrupted(cluster: RayFile, left: list[str]) -> KeyboardInterrupt:
    """Return what ends a command that was stopped while its cluster came up."""
    stays = f"still up: {_listed(left)}" if left else "nothing of it was seen running"
    return KeyboardInterrupt(
        f"interrupted while {cluster.name} was coming up; {stays}. Take it down with dcdctl "
        f"cluster down {cluster.path}, or go on with the same command"
    )


def _left(cluster: RayFile) -> list[str]:
    """Return the machines of a cluster that are there: instances, or hosts that run Ray."""
    if cluster.provider == "aws":
        with suppress(Exception):
            return [f"{m.name} ({m.kind} {m.address})" for m in machines(cluster)]
    if cluster.provider == "local":
        return running_hosts(cluster)
    out = run_ray("get-head-ip", str(cluster.path), deadline_s=60)
    return re.findall(r"^\d+\.\d+\.\d+\.\d+$", out.stdout, re.MULTILINE)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def head_of(cluster: RayFile) -> str:
    """Return the address of the head node.

    Raises:
        ClusterError: the cluster is not up.
    """
    if found := _known_head(cluster):
        return found
    bring = f"bring it up: dcdctl cluster up {cluster.path}"
    if found == "":
        raise ClusterError(f"{cluster.name} has no head that runs; {bring}")
    out = run_ray("get-head-ip", str(cluster.path), deadline_s=60)
    seen = re.findall(r"^\d+\.\d+\.\d+\.\d+$", out.stdout, re.MULTILINE)
    if out.returncode or not seen:
        raise ClusterError(f"{cluster.name} has no head that runs ({reason(out.stdout)}); {bring}")
    return str(seen[-1])


def bring_down(where: str, *, deadline_s: float = 600, say: Say = _quiet) -> None:
    """Take a cluster down, workers included; one that is down already stays so.

    `ray down` leaves the workers of provider local running, and their lifetime's clocks: all are
    stopped here, at the same time.

    Raises:
        ClusterError: something may still be up, or `where` is no cluster file.
    """
    cluster = read_cluster(where)
    if isinstance(cluster, Existing):
        raise ClusterError(
            f"{where} names a cluster that stands without dcdctl; take it down where it was started"
        )
    if cluster.provider == "local":
        stop_hosts(cluster, say)
        return
    say(f"taking down {cluster.name}")
    out = run_ray("down", "--yes", str(cluster.path), deadline_s=deadline_s)
    if out.returncode:
        raise ClusterError(f"{cluster.name} may still be up: {reason(out.stdout)}")


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
