"""What becomes of a trial whose work broke off: again, a failed record, or the end of the sweep."""

from __future__ import annotations

import errno
from typing import Literal

from PIL import UnidentifiedImageError

from tasks.errors import ClusterError, DcdctlError, StoreError

RETRIES = 2
"""Times that a trial is run again after trouble of the machines."""

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
"""Numbers of the errors of a disk that running again does not mend."""

Failure = Literal["machines", "storage", "trial"]


def classify(error: BaseException) -> Failure:
    """Return whose fault an error in a trial is.

    Args:
        error: what was raised; what Ray wraps is looked into.

    Returns:
        machines: a node, a process or a connection died; it is run again, at most RETRIES times.
        storage: nothing can be written; running again would not help, so the sweep ends.
        trial: the setting, the data or a bug; running it again gives the same, so its record says
            "failed" and why.
    """
    from ray.exceptions import RayError, RayTaskError

    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return classify(error.cause)
    if isinstance(error, StoreError):
        return "storage"
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return "storage"
    if isinstance(error, ClusterError | RayError | ConnectionError | TimeoutError):
        return "machines"
    if isinstance(error, OSError) and not isinstance(
        error, FileNotFoundError | UnidentifiedImageError
    ):
        return "machines"
    return "trial"


def sentence(error: BaseException) -> str:
    """Return what a failed record says of an error."""
    if isinstance(error, DcdctlError):
        return str(error)
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"unexpected {type(error).__name__}: {first}"
