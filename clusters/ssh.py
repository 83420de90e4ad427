"""The way to a node: SSH as Ray goes it, a tunnel to the dashboard, and what a refusal means."""

from __future__ import annotations

import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clusters.cluster_file import RayFile
from tasks.errors import ClusterError

DASHBOARD_PORT = 8265
CONNECT_S = 10
_SSH = (
    *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "IdentitiesOnly=yes"),
    *("-o", "ServerAliveInterval=15", "-o", "ExitOnForwardFailure=yes"),
)
# A machine of one's own keeps its key. A cloud gives an address to one machine after the other, and
# Ray itself asks for no key there.
_KNOWN = ("-o", "StrictHostKeyChecking=accept-new")
_NEW = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")

_MEANINGS = (
    (
        ("Could not resolve hostname",),
        "its name is not known here; correct it, or give its address",
    ),
    (
        ("timed out", "No route to host", "Network is unreachable", "Connection refused"),
        "nobody answers there on SSH; switch it on, correct its address or the network, or take it "
        "out of the file",
    ),
    (
        ("bad permissions", "UNPROTECTED PRIVATE KEY"),
        "SSH does not use the key {key}, since others may read it: chmod 600 {key}",
    ),
    (
        ("error in libcrypto", "invalid format"),
        "{key} is no private key that SSH can read; name the private half as auth.ssh_private_key",
    ),
    (
        ("IDENTIFICATION HAS CHANGED", "Host key verification failed"),
        "its host key is not the one that it had before; if that is right: ssh-keygen -R {host}",
    ),
    (
        ("Permission denied", "Too many authentication failures"),
        "it does not let {user} in with {key}; put the key's public half into that account's "
        "authorized_keys, or correct auth.ssh_user or auth.ssh_private_key (a key with a "
        "passphrase needs an agent)",
    ),
)
"""What SSH says, and what it means; the first that fits. Order matters: a bad key is denied too."""


@dataclass(frozen=True)
class Answer:
    """What a command on a node came to.

    Attributes:
        fault: why there was no answer, in words that go on after the node's name; empty if there
            was one.
        code: exit status of the command.
        output: what it printed.
    """

    fault: str
    code: int = 0
    output: str = ""


def ask(cluster: RayFile, host: str, command: str, *, deadline_s: float, text: str = "") -> Answer:
    """Run a command on a node, in the kind of shell in which Ray runs its own.

    Args:
        cluster: says how to get in.
        host: name or address of the node.
        command: for bash.
        deadline_s: seconds that it may take.
        text: its standard input.
    """
    words = ssh_words(cluster, host)
    # Where ~/.profile does not read ~/.bashrc, Ray reads it all the same.
    inside = f"source ~/.bashrc 2>/dev/null; {command}"
    words.append(f"bash --login -c -i {shlex.quote(inside)}")
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(f"it did not answer within {deadline_s:.0f} s")
    except FileNotFoundError:
        return Answer("there is no `ssh` here; install OpenSSH's client")
    if done.returncode == 255:
        return Answer(meaning(cluster, host, done.stderr), 255)
    return Answer("", done.returncode, done.stdout)


def meaning(cluster: RayFile, host: str, said: str) -> str:
    """Return what SSH's words mean, and what to do."""
    auth = cluster.config["auth"]
    key = str(auth.get("ssh_private_key") or "your own keys")
    for words, means in _MEANINGS:
        if any(word in said for word in words):
            return means.format(key=key, host=host, user=auth["ssh_user"])
    last = [line.strip() for line in said.splitlines() if line.strip()]
    return f"SSH to it fails ({(last or ['it said nothing'])[-1][:200]})"


def ssh_words(cluster: RayFile, host: str, *more: str) -> list[str]:
    """Return the command line that reaches a node."""
    auth = cluster.config["auth"]
    key = auth.get("ssh_private_key")
    identity = ["-i", str(Path(str(key)).expanduser())] if key else ["-o", "IdentitiesOnly=no"]
    proxy = auth.get("ssh_proxy_command")
    through = ["-o", f"ProxyCommand={proxy}"] if proxy else []
    trust = _KNOWN if cluster.provider == "local" else _NEW
    # SSH takes the first value that it is given.
    return ["ssh", *identity, *_SSH, *trust, *through, *more, f"{auth['ssh_user']}@{host}"]


@dataclass(frozen=True)
class Tunnel:
    """A port of this machine that is the dashboard of a head."""

    cluster: RayFile
    head: str
    port: int
    _process: subprocess.Popen[bytes]
    _said: IO[bytes]

    def check(self) -> None:
        """Raise ClusterError where SSH has ended, and say why."""
        if self._process.poll() is not None:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")
            why = meaning(self.cluster, self.head, said)
            raise ClusterError(f"{self.cluster.name}: head {self.head}: {why}")

    def is_through(self) -> bool:
        """Say whether SSH has got in and listens here."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def tunnel(cluster: RayFile, head: str) -> Iterator[Tunnel]:
    """Have the head's dashboard, which listens on its loopback alone, on a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forward = f"127.0.0.1:{port}:127.0.0.1:{DASHBOARD_PORT}"
    # `cat` instead of -N: it ends with its standard input, so that the tunnel ends with this
    # process however that ends.
    words = [*ssh_words(cluster, head, "-L", forward), "cat"]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the command, not for its tunnel
            )
        except FileNotFoundError as error:
            raise ClusterError("there is no `ssh` here; install OpenSSH's client") from error
        try:
            yield Tunnel(cluster, head, port, process, said)
        finally:
            process.terminate()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
