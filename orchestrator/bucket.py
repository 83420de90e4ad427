"""How a bucket is reached: its file system, the credentials, and asking again.

What cannot be, or does not answer, becomes one sentence here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tasks.errors import StoreError

if TYPE_CHECKING:
    import pyarrow.fs as pafs  # and in functions: to look at a run in a folder needs no Arrow

SCHEMES = ("s3", "gs")

CHECK_S, PATIENCE_S = 20.0, 120.0
"""Seconds for which a store that does not answer is asked again: at the start, and during a run."""

CONNECT_S, REQUEST_S, ATTEMPTS = 5.0, 15.0, 2

T = TypeVar("T")


class NoBucketError(StoreError):
    """The bucket does not exist."""


_FINAL = {
    "NO_SUCH_BUCKET": "the bucket does not exist; create it, or name another in `storage`",
    "ACCESS_DENIED": "access is denied; give these credentials the right to list, read, write and "
    "delete objects under the prefix",
    "INVALID_ACCESS_KEY_ID": "the access key is not known; check AWS_ACCESS_KEY_ID",
    "UNRECOGNIZED_CLIENT": "the access key is not known; check AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "EXPIRED_TOKEN": "the session token has expired; get new credentials",
}
"""What Arrow says where asking again cannot help, and what to do."""

_NO_CREDENTIALS = (
    "no credentials were found and access is denied; set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where the machine has a role"
)


def ask_again(uri: str, ask: Callable[[], T], patience_s: float | None = None) -> T:
    """Ask until it answers or patience ends; what can never work is not asked again.

    Args:
        uri: of the storage, for messages.
        ask: what is asked.
        patience_s: seconds; None takes PATIENCE_S.

    Raises:
        StoreError: says what the object store said, and what to do.
    """
    deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    wait = 0.2
    while True:
        try:
            return ask()
        except OSError as error:
            text = str(error)
            advice = next((what for word, what in _FINAL.items() if word in text), None)
            if advice is not None:
                if "ACCESS_DENIED" in text and not _has_credentials(uri):
                    advice = _NO_CREDENTIALS
                kind = NoBucketError if "NO_SUCH_BUCKET" in text else StoreError
                raise kind(f"storage {uri}: {advice}") from error
            if isinstance(error, FileNotFoundError) or error.errno is not None:
                raise
            if time.monotonic() + wait > deadline:
                raise StoreError(
                    f"storage {uri} does not answer ({_short(text)}); check the network "
                    "and AWS_ENDPOINT_URL, and resume: what was finished is kept"
                ) from error
            time.sleep(wait)
            wait = min(2 * wait, 10.0)


def open_bucket(scheme: str, bucket: str, endpoint: str | None) -> pafs.FileSystem:
    """Return the file system, with short waits: asking again is done here.

    Raises:
        StoreError: no region is set, and the bucket's cannot be found.
    """
    import pyarrow.fs as pafs

    if scheme == "gs":
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        options: dict[str, Any] = {}
        if emulator:
            host = urlsplit(emulator if "//" in emulator else f"http://{emulator}")
            options = {"endpoint_override": host.netloc, "scheme": host.scheme, "anonymous": True}
        return pafs.GcsFileSystem(retry_time_limit=timedelta(seconds=CHECK_S), **options)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = endpoint_of_environment() or endpoint
    if not region and not endpoint:
        try:
            region = pafs.resolve_s3_region(bucket)
        except OSError as error:
            raise StoreError(
                f"storage s3://{bucket}: the bucket does not exist, or AWS cannot be reached to "
                f"ask for its region ({_short(str(error))}); check its name, or set AWS_REGION"
            ) from error
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def endpoint_of_environment() -> str | None:
    """Return the address of s3 that the environment names, None where it is Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _has_credentials(uri: str) -> bool:
    """Say whether any is configured; a machine's role is not looked for, it would take seconds."""
    if urlsplit(uri).scheme != "s3":
        return True
    names = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    role = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    own = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"
    return any(os.environ.get(name) for name in (*names, *role)) or Path(own).is_file()


def _short(text: str) -> str:
    """Return the part of Arrow's sentence that says what broke."""
    return (text.strip().splitlines() or ["no reason given"])[0].split(" (Request ID")[0][:160]
