"""Bring a folder of a cluster's head here, over the SSH that its file names."""

from __future__ import annotations

import shlex
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from clusters.cluster_file import RayFile
from clusters.lifecycle import ssh_words
from tasks.errors import ClusterError

DEADLINE_S = 3600.0


def fetch_folder(cluster: RayFile, head: str, folder: PurePosixPath, to: Path) -> None:
    """Copy the files of a folder.

    Args:
        cluster: says how the head is entered.
        head: its address.
        folder: on the head; `~` is the home folder there.
        to: folder here, made if need be.

    Raises:
        ClusterError: it is not there, the head cannot be entered, or a file leads out of `to`.
    """
    parts = folder.parts
    home, below = parts[0] == "~", parts[1:] if parts[0] == "~" else parts
    place = shlex.quote(str(PurePosixPath(*below)))
    command = f"tar -C {'~/' if home else ''}{place} -cf - ."
    process = subprocess.Popen(
        [*ssh_words(cluster, head), command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    to.mkdir(parents=True, exist_ok=True)
    broken: Exception | None = None
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            archive.extractall(to, filter="data")
    except (tarfile.TarError, OSError) as error:
        broken = error
        process.terminate()
    try:
        _, said = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise ClusterError(f"{head} did not send {folder} in {DEADLINE_S:.0f} s") from None
    if process.returncode or broken is not None:
        lines = said.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:300] if lines else str(broken or "it said nothing")
        raise ClusterError(f"{folder} did not come from {head} ({reason})") from broken
