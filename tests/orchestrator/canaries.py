"""Whole commands with planted names and secrets, watched from outside while they run."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tasks.datasets.faces import render_faces

MARK = "DCD_CANARY_RUN"
"""In the environment of everything that is started, by which its processes are known."""

PEOPLE, IMAGES, SIZE = 12, 8, 40


@dataclass(frozen=True)
class Canaries:
    """Words that nothing else on this machine holds."""

    person: str = field(default_factory=lambda: f"Kanari{secrets.token_hex(6)}")
    file: str = field(default_factory=lambda: f"photo{secrets.token_hex(6)}")
    folder: str = field(default_factory=lambda: f"album{secrets.token_hex(6)}")
    access_key: str = field(default_factory=lambda: f"AKX{secrets.token_hex(8).upper()}")
    secret_key: str = field(default_factory=lambda: f"sk{secrets.token_hex(16)}")
    tracking_token: str = field(default_factory=lambda: f"mt{secrets.token_hex(16)}")
    cluster_token: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def names(self) -> list[str]:
        """What tells of people."""
        return [self.person, self.file, self.folder]

    @property
    def secrets(self) -> list[str]:
        """What opens something."""
        return [self.secret_key, self.tracking_token, self.cluster_token]


def write_photos(root: Path, planted: Canaries) -> Path:
    """Write photos of people, and an experiment on them; return the experiment's file."""
    names = [f"{planted.person} {i}" for i in range(PEOPLE)]
    album = root / planted.folder
    for i, name in enumerate(names):
        (album / name).mkdir(parents=True)
        faces = render_faces(0, "private", np.full(IMAGES, i), np.arange(IMAGES), SIZE)
        for j, face in enumerate(faces):
            Image.fromarray(face).save(album / name / f"{planted.file}-{j}.png")
    (album / names[-1] / f"{planted.file}-torn.png").write_bytes(b"no picture")
    settings = {
        "data": {
            "kind": "folder",
            "root": str(album),
            "private": names[:4],
            "surrogates": names[4:7],
            "public": names[7:],
            "max_quarantine_fraction": 0.2,
        },
        "protect": {"targets": names[:2]},
    }
    path = root / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@dataclass(frozen=True)
class Listener:
    """A socket that takes connections."""

    program: str
    address: str
    port: int


class Watch:
    """Looks at the processes of a run until it is stopped: command lines, environments, sockets.

    Args:
        mark: what `MARK` is in their environment.
        kept: folder for what Ray writes for the time of a command alone.
    """

    def __init__(self, mark: str, kept: Path) -> None:
        self.mark, self.kept = f"{MARK}={mark}".encode(), kept
        self.command_lines: set[bytes] = set()
        self.environments: dict[bytes, bytes] = {}
        self.listeners: set[Listener] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            self.look()

    def look(self) -> None:
        """Look once."""
        open_ports = _listening()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
                if self.mark not in environment:
                    continue
                line = (process / "cmdline").read_bytes()
                self.command_lines.add(line)
                self.environments[line] = environment
                program = _program(line)
                for link in (process / "fd").iterdir():
                    found = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
                    if found and found[1] in open_ports:
                        self.listeners.add(Listener(program, *open_ports[found[1]]))
                self._keep_session(int(process.name))
            except OSError:
                continue

    def _keep_session(self, process: int) -> None:
        """Copy what Ray wrote for a driver: it is removed when the command ends."""
        for session in Path("/tmp").glob(f"dcd-*/session_*_{process}"):
            for path in session.rglob("*"):
                target = self.kept / session.name / path.relative_to(session)
                try:
                    size = path.stat().st_size
                    if not path.is_file() or (target.exists() and target.stat().st_size == size):
                        continue
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
                except (OSError, shutil.Error):
                    continue


def _program(line: bytes) -> str:
    words = line.decode(errors="replace").replace("\0", " ").strip()
    for pattern in (r"ray::\S+", r"gcs_server", r"raylet", r"log_monitor", r"runtime_env/agent"):
        if found := re.search(pattern, words):
            return found[0].split("::")[0] if pattern.startswith("ray::") else found[0]
    for pattern in (r"dashboard/agent", r"dashboard/dashboard", r"default_worker", r"monitor\.py"):
        if found := re.search(pattern, words):
            return found[0]
    return "dcdctl" if "dcdctl" in words else words[:60]


def _listening() -> dict[str, tuple[str, int]]:
    """Return address and port of every listening TCP socket, by inode."""
    found = {}
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] != "0A":
                continue
            raw, port = words[1].split(":")
            parts = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
            address = socket.inet_ntop(family, b"".join(parts))
            found[words[9]] = (address, int(port, 16))
    return found


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


@dataclass
class Stage:
    """Where a run happens: nothing of it lies anywhere else.

    Attributes:
        root: everything that is written.
        env: of every command.
        planted: the words.
        output: what commands printed, one file each.
    """

    root: Path
    env: dict[str, str]
    planted: Canaries
    output: Path

    def dcdctl(self, *words: str, codes: tuple[int, ...] = (0,), stdin: str = "") -> str:
        """Run a command, and keep what it prints."""
        number = len(list(self.output.iterdir()))
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dcdctl")), *words],
            cwd=self.root / "work",
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        (self.output / f"{number:02d}.txt").write_text(done.stdout + done.stderr)
        assert done.returncode in codes, (words[0], done.returncode, done.stderr[-3000:])
        return done.stdout


@contextmanager
def stage(tmp: Path, planted: Canaries, extra: dict[str, str]) -> Iterator[Stage]:
    """Have folders and an environment of one's own."""
    for name in ("home/.ray", "tmp", "cache", "work", "output", "sessions"):
        (tmp / name).mkdir(parents=True)
    token = tmp / "home" / ".ray" / "auth_token"
    token.write_text(planted.cluster_token)
    token.chmod(0o600)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
    env |= extra | {
        "HOME": str(tmp / "home"),
        "TMPDIR": str(tmp / "tmp"),
        "XDG_CACHE_HOME": str(tmp / "cache"),
        "RAY_BACKEND_LOG_LEVEL": "debug",
        "MLFLOW_TRACKING_TOKEN": planted.tracking_token,
        "AWS_ACCESS_KEY_ID": planted.access_key,
        "AWS_SECRET_ACCESS_KEY": planted.secret_key,
        MARK: f"{os.getpid()}-{time.time_ns()}",
    }
    yield Stage(tmp, env, planted, tmp / "output")
