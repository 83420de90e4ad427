"""Ray on machines of one's own: which of them run it, and how it ends there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from clusters.cluster_file import RayFile
from clusters.ray_command import run_ray
from clusters.ssh import Answer, ask
from tasks.errors import ClusterError

STOP_S = 90.0
_OURS = "ps -u \"$(id -u)\" -o args= | grep -E '(^|/)(raylet|gcs_server) ' | grep -v grep"
# The clock of the lifetime is a session of its own, `sh` and its `sleep`. A number that another
# process has by now is left alone.
_STOP = f"""\
clock=$(cat ~/.ray/lifetime 2>/dev/null)
if [ -n "$clock" ] && grep -qs lifetime "/proc/$clock/cmdline"; then kill -- "-$clock"; fi
rm -f ~/.ray/lifetime
ray stop --grace-period 10 || ray stop --force
if {_OURS} >/dev/null; then ray stop --force; sleep 1; fi
if {_OURS}; then exit 3; fi
"""


def hosts_of(cluster: RayFile) -> list[str]:
    """Return the machines of provider local, the head as the last one."""
    provider = cluster.config["provider"]
    head = provider.get("external_head_ip") or provider["head_ip"]
    return [*map(str, provider.get("worker_ips") or ()), str(head)]


def running_hosts(cluster: RayFile) -> list[str]:
    """Return the machines on which this account runs Ray; those out of reach are left out."""
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(partial(_ask, cluster, _OURS), hosts_of(cluster)))
    return [host for host, answer in found if not answer.fault and answer.output.strip()]


def stop_hosts(cluster: RayFile, say: Callable[[str], None]) -> None:
    """Stop Ray on all machines at the same time; where none runs nothing happens.

    Raises:
        ClusterError: some may still run it: out of reach, or it does not end.
    """
    hosts = hosts_of(cluster)
    say(f"stopping Ray on {', '.join(hosts)}")
    found = _stop(cluster, hosts)
    # Ray's own note of which machines are in use lies on this one.
    run_ray("down", "--yes", str(cluster.path), deadline_s=120)
    # A head that was just starting a machine may have done so after that machine was looked at.
    found |= _stop(cluster, running_hosts(cluster))
    left = [
        f"{host}: {answer.fault or 'its Ray does not end'}"
        for host, answer in found.items()
        if answer.fault or answer.code
    ]
    if left:
        raise ClusterError(
            f"{cluster.name} may still run on {len(left)} of {len(hosts)} machines; {left[0]}; "
            "then repeat the command, or run `ray stop --force` there"
        )


def _stop(cluster: RayFile, hosts: Sequence[str]) -> dict[str, Answer]:
    with ThreadPoolExecutor(32) as pool:
        return dict(pool.map(partial(_ask, cluster, _STOP), hosts))


def _ask(cluster: RayFile, command: str, host: str) -> tuple[str, Answer]:
    return host, ask(cluster, host, command, deadline_s=STOP_S)
