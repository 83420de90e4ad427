"""Machines of one's own that cannot be used: a sentence each, within a minute, and nothing left.

pytest -m hosts tests/clusters/test_bad_hosts.py      # root; about 4 minutes
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters.hosts import OPERATOR, Lab, can_start, lab

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
]

Config = dict[str, Any]
Change = Callable[[Lab, Config, Path], object]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    with lab(2, network="10.84") as made:
        yield made


def key(name: str, text: str | None, mode: int = 0o600) -> Change:
    """Name another key: a new one, the right one with other rights, or no key at all."""

    def change(hosts: Lab, config: Config, folder: Path) -> None:
        path = folder / name
        if text is None:
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(words, check=True)
        else:
            path.write_text(hosts.key.read_text() if text == "right" else text)
        path.chmod(mode)
        config["auth"]["ssh_private_key"] = str(path)

    return change


def worker(address: str) -> Change:
    return lambda hosts, config, folder: config["provider"].update(worker_ips=[address])


def shell(text: str) -> Change:
    """Have node2's shell find something else; `{other}` is a folder of this test's."""

    def change(hosts: Lab, config: Config, folder: Path) -> None:
        lines = text.format(other=folder / "other")
        script = f"printf '%s\\n' {shlex.quote(lines)} >~/.bashrc; cp ~/.bashrc ~/.profile"
        hosts.run("bash", "-c", script, on="node2")

    return change


def ray_under(interpreter: str) -> Change:
    """Put a `ray` under another Python first on node2's PATH."""

    def change(hosts: Lab, config: Config, folder: Path) -> None:
        other = folder / "other"
        other.mkdir()
        (other / "ray").write_text(f"#!{interpreter}\nprint('ray')\n")
        (other / "ray").chmod(0o755)
        shell("export PATH={other}:/usr/bin:/bin")(hosts, config, folder)

    return change


def another_ray(hosts: Lab, config: Config, folder: Path) -> None:
    """Have node2's Python find the metadata of another Ray first."""
    made = folder / "other" / "ray-2.40.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.40.0\n")
    path = Path(sys.executable).parent
    shell(f"export PATH={path}:$PATH PYTHONPATH={{other}}")(hosts, config, folder)


def another_python() -> str:
    """Return an interpreter of another minor version, made if this machine has none."""
    for name in ("python3.10", "python3.12", "python3.13", "pypy3"):
        if found := shutil.which(name, path="/usr/bin:/usr/local/bin"):
            return found
    return ""


def no_token(hosts: Lab, config: Config, folder: Path) -> None:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[name] = [line.replace("RAY_AUTH_MODE=token ", "") for line in config[name]]


REFUSED: dict[str, tuple[Change, str]] = {
    "worker off": (worker("10.84.0.99"), "10.84.0.99 (provider.worker_ips): nobody answers"),
    "head off": (
        lambda h, config, f: config["provider"].update(head_ip="10.84.0.98"),
        "head 10.84.0.98: nobody answers there on SSH; switch it on",
    ),
    "unknown name": (worker("no-such-host"), "its name is not known here; correct it"),
    "wrong key": (key("new", None), "it does not let root in with"),
    "key that others read": (key("open", "right", 0o644), "since others may read it: chmod 600"),
    "key that is none": (key("text", "not a key\n"), "is no private key that SSH can read"),
    "missing key": (
        lambda h, config, f: config["auth"].update(ssh_private_key="/nowhere/key"),
        "auth.ssh_private_key='/nowhere/key' does not exist",
    ),
    "wrong account": (
        lambda h, config, f: config["auth"].update(ssh_user="nobody"),
        "it does not let nobody in with",
    ),
    "another Python": (ray_under(another_python()), "Ray runs there under Python 3."),
    "another Ray": (another_ray, "it has Ray 2.40.0, and here it is"),
    "Python without packages": (ray_under("/usr/bin/python3"), "its Python lacks "),
    "no Ray": (shell("export PATH=/usr/bin:/bin"), "there is no `ray` on the PATH"),
    "broken shell": (shell("exit 3"), "its shell did not run Python"),
    "no token": (no_token, "has no `ray start --head` with RAY_AUTH_MODE=token"),
    "no token sent": (
        lambda h, config, f: config["file_mounts"].clear(),
        "file_mounts has no ~/.ray/auth_token",
    ),
    "a file that is not here": (
        lambda h, config, f: config["file_mounts"].update({"~/x": "/nowhere/x"}),
        "file_mounts: '/nowhere/x', which goes to ~/x, does not exist here",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_one_sentence(name: str, hosts: Lab, tmp_path: Path) -> None:
    change, words = REFUSED[name]
    if name == "another Python" and not another_python():
        pytest.skip("this machine has no second Python; Debian: apt-get install pypy3")
    hosts.run("bash", "-c", "cp ~/.bashrc ~/.profile /tmp/ray/", on="node2")
    path = hosts.onprem(tmp_path)
    config = yaml.safe_load(path.read_text())
    try:
        change(hosts, config, tmp_path)
        path.write_text(yaml.safe_dump(config, sort_keys=False, width=1000))
        started = time.monotonic()
        ended = hosts.run("dcdctl", "cluster", "up", str(path), timeout=120)
        took = time.monotonic() - started
    finally:
        hosts.run("bash", "-c", "cp /tmp/ray/.bashrc /tmp/ray/.profile ~", on="node2")
    said = [line for line in ended.stdout.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 7, ended.stdout
    assert len(said) == 1, ended.stdout
    assert words in said[0]
    assert "Traceback" not in ended.stdout
    assert took < 60
    assert left(hosts) == {}


def left(hosts: Lab) -> dict[str, list[str]]:
    """Return what of a cluster runs: Ray and its clock on the hosts, tunnels and Ray's commands."""
    found = {
        name: [
            line
            for line in hosts.processes(name)
            if any(
                word in line for word in ("raylet", "gcs_server", "lifetime", "ray.scripts", "-L")
            )
        ]
        for name in hosts.hosts
    }
    return {name: lines for name, lines in found.items() if lines}


def up(hosts: Lab, folder: Path) -> Path:
    """Bring a cluster up."""
    path = hosts.onprem(folder)
    ended = hosts.run("dcdctl", "cluster", "up", str(path))
    assert ended.returncode == 0, ended.stdout
    return path


def test_down_ends_all_after_a_crash_and_twice(hosts: Lab, tmp_path: Path) -> None:
    path = up(hosts, tmp_path)
    assert set(left(hosts)) == {"node1", "node2"}
    hosts.run("bash", "-c", "pkill -9 gcs_server; pkill -9 raylet", on="node1")
    for _ in range(2):
        ended = hosts.run("dcdctl", "cluster", "down", str(path))
        assert ended.returncode == 0, ended.stdout
        assert left(hosts) == {}
        assert "sleep 43200" not in str([hosts.processes(f"node{n}") for n in (1, 2)])


def test_down_says_which_machine_may_still_run(hosts: Lab, tmp_path: Path) -> None:
    path = up(hosts, tmp_path)
    hosts.link("node2", up=False)
    try:
        ended = hosts.run("dcdctl", "cluster", "down", str(path))
    finally:
        hosts.link("node2", up=True)
    assert ended.returncode == 7
    assert "may still run on 1 of 2 machines; 10.84.0.12: nobody answers" in ended.stdout
    assert "node1" not in left(hosts)
    assert hosts.run("dcdctl", "cluster", "down", str(path)).returncode == 0
    assert left(hosts) == {}


def interrupt(hosts: Lab, words: list[str], ready: Callable[[], bool], number: int) -> str:
    """Run a command until something holds, send it a signal, and return what it said."""
    process = subprocess.Popen(
        hosts.words(*words),
        cwd=hosts.folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.2)
    os.killpg(process.pid, number)
    return process.communicate(timeout=120)[0]


def test_ctrl_c_while_it_comes_up_says_what_stays(hosts: Lab, tmp_path: Path) -> None:
    path = hosts.onprem(tmp_path)
    words = ["dcdctl", "cluster", "up", str(path)]

    def head_runs() -> bool:
        return any("raylet" in line for line in hosts.processes("node1"))

    said = interrupt(hosts, words, head_runs, signal.SIGINT)
    assert "interrupted while dcdctl-onprem was coming up; still up: " in said
    assert "10.84.0.11" in said
    assert f"dcdctl cluster down {path}" in said
    assert OPERATOR not in left(hosts)
    assert hosts.run("dcdctl", "cluster", "down", str(path)).returncode == 0
    assert left(hosts) == {}


def test_a_cluster_that_stands_is_joined_and_no_tunnel_outlives_a_kill(
    hosts: Lab, tmp_path: Path
) -> None:
    """`ray up` would start Ray anew, and end the jobs that run there."""
    path = up(hosts, tmp_path)
    before = raylet(hosts)
    words = ["dcdctl", "sweep", "--smoke", "--cluster", str(path), "--storage", f"{tmp_path}/s"]

    def job_was_sent() -> bool:
        return list(tmp_path.glob("s/jobs/*.json")) != [] and OPERATOR in left(hosts)

    interrupt(hosts, words, job_was_sent, signal.SIGKILL)
    end = time.monotonic() + 30
    while OPERATOR in left(hosts) and time.monotonic() < end:
        time.sleep(0.5)
    assert OPERATOR not in left(hosts)
    assert "is up already" in hosts.run("dcdctl", "cluster", "up", str(path)).stdout
    assert raylet(hosts) == before
    assert hosts.run("dcdctl", "cluster", "down", str(path)).returncode == 0
    assert left(hosts) == {}


def raylet(hosts: Lab) -> list[str]:
    """Return the processes that are the head."""
    found = hosts.run("pgrep", "-f", "bin/gcs_server|raylet/raylet", on="node1").stdout
    return found.split()
