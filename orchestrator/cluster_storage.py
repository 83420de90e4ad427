"""The storage of a run on a cluster, looked at from here before the cluster costs money."""

from __future__ import annotations

from urllib.parse import urlsplit

from orchestrator.bucket import SCHEMES, NoBucketError
from orchestrator.object_store import open_object_store
from tasks.errors import StoreError


def check_storage(storage: str) -> str | None:
    """Look at a storage in an object store.

    Nodes have rights of their own, so what this machine may not do they may.

    Args:
        storage: as in the settings.

    Returns:
        A sentence for the person where this machine cannot use it.

    Raises:
        NoBucketError: there is no such bucket, for nobody.
        StoreError: the URI itself is wrong.
    """
    parts = urlsplit(storage)
    if parts.scheme not in SCHEMES:
        return None
    wrong = not parts.netloc or "@" in parts.netloc
    try:
        open_object_store(storage)
    except NoBucketError:
        raise
    except StoreError as error:
        if wrong:
            raise
        return f"from here: {error}; the cluster's nodes have to be able to use it"
    return None
