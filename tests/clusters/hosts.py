"""Real SSH hosts in namespaces of this machine: what a cluster file names, on one machine.

Each host has its own network address, processes, home folder, shared memory and Ray folder, and an
sshd. One more namespace is the person's own machine ("operator"), in which commands run:

    with lab(3) as hosts:                       # needs root, iproute2, openssh-server and rsync
        file = hosts.onprem(tmp_path)           # a cluster file that names them
        hosts.run("dcdctl", "cluster", "up", str(file))
        hosts.run("dcdctl", "sweep", "--smoke", "--cluster", str(file))
        hosts.unplug("node2")                   # the plug: every process of it is gone
        hosts.link("node3", up=False)           # a partition: it runs on, and nobody reaches it

The code that runs is the one on PYTHONPATH. Everything ends with the `with`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from clusters.cluster_file import SHIPPED

OPERATOR = "operator"

_SSHD = """\
Port 22
HostKey {lab}/host_key
AuthorizedKeysFile {lab}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
MaxStartups 100
PidFile none
"""

# The lab's own folder is in nothing that is mounted over: keys under a tmpfs are keys lost.
_BOOT = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o size=512m tmpfs {own}
mkdir {own}/up {own}/work
mount -t overlay overlay -o lowerdir={home},upperdir={own}/up,workdir={own}/work {home}
rm -rf {home}/.ray {home}/.ssh
mkdir -p /tmp/ray /run/sshd
mount -t tmpfs -o size=2g tmpfs /tmp/ray
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount --bind {lab}/hosts /etc/hosts
hostname {name}
printf 'export PATH={bin}:$PATH RAY_USAGE_STATS_ENABLED=0\\n' >{home}/.bashrc
cp {home}/.bashrc {home}/.profile
rm -f {home}/.bash_profile {home}/.bash_login
touch {lab}/{name}.ready
exec {last}
"""


@dataclass
class Host:
    """One of them: its namespace, the process that holds it, and its address."""

    name: str
    address: str
    namespace: str
    process: subprocess.Popen[bytes]

    @property
    def inside(self) -> int:
        """Return the process that is the first of the host's own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])


@dataclass
class Lab:
    """The hosts, and what can be done to them."""

    folder: Path
    prefix: str
    hosts: dict[str, Host] = field(default_factory=dict)
    _made: list[str] = field(default_factory=list)

    @property
    def key(self) -> Path:
        """Return the private key that opens every host."""
        return self.folder / "key"

    def addresses(self) -> list[str]:
        """Return the addresses of the hosts, without the operator's."""
        return [host.address for host in self.hosts.values() if host.name != OPERATOR]

    def add(self, name: str, address: str, *, sshd: bool = True) -> Host:
        """Start a host."""
        space = f"{self.prefix}{len(self._made)}"
        _ip("netns", "add", space)
        self._made.append(space)
        _ip("-n", space, "link", "set", "lo", "up")
        if name == OPERATOR:
            _ip("-n", space, "link", "add", "br0", "type", "bridge")
            _ip("-n", space, "addr", "add", f"{address}/16", "dev", "br0")
            _ip("-n", space, "link", "set", "br0", "up")
        else:
            centre, port = self.hosts[OPERATOR].namespace, f"v{len(self._made)}"
            peer = ("peer", "name", "eth0", "netns", space)
            _ip("link", "add", port, "netns", centre, "type", "veth", *peer)
            _ip("-n", centre, "link", "set", port, "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{address}/16", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            gate = self.hosts[OPERATOR].address
            _ip("-n", space, "route", "add", "default", "via", gate)
        with (self.folder / "hosts").open("a") as names:
            names.write(f"{address} {name}\n")
        own = self.folder / f"{name}.{len(self._made)}"
        own.mkdir()
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        boot = self.folder / f"{name}.sh"
        last = f"/usr/sbin/sshd -D -e -f {self.folder}/sshd_config" if sshd else "sleep infinity"
        boot.write_text(
            _BOOT.format(
                own=own,
                lab=self.folder,
                name=name,
                home=Path.home(),
                bin=Path(sys.executable).parent,
                last=last,
            )
        )
        words = ["ip", "netns", "exec", space, "unshare", "--fork", "--pid", "--mount"]
        words += ["--mount-proc", "--uts", "--kill-child", "bash", str(boot)]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                words, env=_clean(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        host = Host(name, address, space, process)
        self.hosts[name] = host
        end = time.monotonic() + 30
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                said = (self.folder / f"{name}.log").read_text()
                raise RuntimeError(f"the host {name} did not start: {said}")
            time.sleep(0.02)
        return host

    def run(
        self,
        *words: str,
        on: str = OPERATOR,
        timeout: float = 600,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the operator's machine, or on a host; it is not checked."""
        return subprocess.run(
            self.words(*words, on=on),
            cwd=cwd or self.folder,
            env=_clean() | {"COLUMNS": "200"} | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def words(self, *words: str, on: str = OPERATOR) -> list[str]:
        """Return the command line that runs a command inside, for one's own Popen."""
        inside = str(self.hosts[on].inside)
        return ["nsenter", "-t", inside, "--net", "--mount", "--pid", "--uts", "--wd=.", *words]

    def processes(self, name: str) -> list[str]:
        """Return the command lines that run on a host, without its sshd."""
        found = self.run("ps", "-eo", "args", "--no-headers", on=name).stdout.splitlines()
        return [line for line in found if not line.startswith(("sshd", "ps ", "/usr/sbin/sshd"))]

    def ray(self, name: str) -> list[str]:
        """Return the command lines of Ray's own processes on a host."""
        return [line for line in self.processes(name) if "raylet" in line or "gcs_server" in line]

    def wait_without_ray(self, *names: str, seconds: float) -> None:
        """Wait until no host runs Ray any more.

        Raises:
            AssertionError: one still does after so many seconds.
        """
        end = time.monotonic() + seconds
        while left := [name for name in names if self.ray(name)]:
            assert time.monotonic() < end, f"Ray goes on on {', '.join(left)}"
            time.sleep(1)

    def unplug(self, name: str) -> None:
        """Pull the plug: every process of the host is gone at once."""
        host = self.hosts.pop(name)
        host.process.kill()
        host.process.wait()
        _ip("netns", "del", host.namespace)
        self._made = [space if space != host.namespace else "" for space in self._made]

    def link(self, name: str, *, up: bool) -> None:
        """Take a host's cable out, or put it back."""
        _ip("-n", self.hosts[name].namespace, "link", "set", "eth0", "up" if up else "down")

    def onprem(self, folder: Path, **changes: object) -> Path:
        """Write the shipped onprem.yaml with these hosts in it."""
        config = yaml.safe_load((SHIPPED / "onprem.yaml").read_text())
        head, *workers = self.addresses()
        config["provider"] |= {"head_ip": head, "worker_ips": workers}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.key)}
        config |= changes
        path = folder / "onprem.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False, width=1000))
        return path

    def close(self) -> None:
        """End every host."""
        for host in self.hosts.values():
            host.process.kill()
            host.process.wait()
        for space in filter(None, self._made):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", space)
        shutil.rmtree(self.folder, ignore_errors=True)


def can_start() -> str:
    """Return what is missing for a lab, or nothing."""
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [name for name in ("ip", "unshare", "nsenter", "rsync") if not shutil.which(name)]
    if not Path("/usr/sbin/sshd").is_file():
        missing.append("sshd")
    return f"missing: {', '.join(missing)}" if missing else ""


@contextmanager
def lab(count: int, *, network: str = "10.77") -> Iterator[Lab]:
    """Start the operator's machine and hosts node1, node2, ... at <network>.0.11, .12, ..."""
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/var/tmp"))
    made = Lab(folder, f"dcd{os.getpid() % 100000}x")
    (folder / "sshd_config").write_text(_SSHD.format(lab=folder))
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    for name in ("key", "host_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    try:
        made.add(OPERATOR, f"{network}.0.1", sshd=False)
        for number in range(1, count + 1):
            made.add(f"node{number}", f"{network}.0.{10 + number}")
        yield made
    finally:
        made.close()


def _clean() -> dict[str, str]:
    """Return the environment without what belongs to this process's own Ray."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return env | {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
