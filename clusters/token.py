"""The token that opens this person's clusters, and Ray on this machine."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from clusters.cluster_file import DEFAULT_TOKEN


def own_token() -> Path:
    """Return the file of this person's token, made if need be, readable by them alone."""
    path = DEFAULT_TOKEN.expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
    path.chmod(0o600)
    return path
