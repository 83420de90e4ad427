"""A classifier behind an HTTP endpoint that answers pictures with scores: docs/audit.md.

An image that was sent is one query, whether its answer came back or not, for the other side may
have counted it; one that was refused (429, 503) or never sent is none. A budget is a hard stop:
what does not fit is not sent.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tasks.errors import AccessError, EndpointError, QueryBudgetError, SpecError
from tasks.evaluation import from_unit
from tasks.types import UNIT

BATCH = 32
"""Images of one request, at the most."""

REFUSED = (429, 503)
"""The server did not look at the images, and asks to come back."""

BROKEN = (500, 502, 504)
"""A second try may help; whether the images were looked at is not known."""

LONGEST_ANSWER = 64 << 20
LONGEST_TRY_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

SUM_TOLERANCE = 0.02
"""Scores are often rounded to two or three digits before they are sent."""

LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """Where the scores come from, and what may be asked of it.

    Attributes:
        url: http or https.
        image_size: pixels of a side that are sent.
        token_env: environment variable with the bearer token.
        fields: of the images in the request, and of the scores in the answer.
        logits: the answers are logits, not probabilities.
        budget: queries at the most, None for no limit.
        rate: queries a second at the most, None for no limit.
        deadline_s: for one batch, with all its tries.
    """

    url: str
    image_size: int
    token_env: str | None = None
    fields: tuple[str, str] = ("images", "scores")
    logits: bool = False
    budget: int | None = None
    rate: float | None = None
    deadline_s: float = 60.0

    @property
    def address(self) -> SplitResult:
        """The URL in parts.

        Raises:
            SpecError: it is no http(s) URL, or holds a password.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecError(f"{self.shown!r} is no http:// or https:// address; give one")
        if parts.username is not None or parts.password is not None:
            raise SpecError(
                f"the address of {parts.hostname} holds a user or a password; put a token into an "
                "environment variable and name that with --token-env"
            )
        return parts

    @property
    def shown(self) -> str:
        """The URL for people and records: without user, password and query."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}"

    @property
    def warning(self) -> str | None:
        """What is risky about the address; None where nothing is."""
        parts = self.address
        if parts.scheme == "https" or parts.hostname in LOCAL:
            return None
        token = " and the token" if self.token_env else ""
        return (
            f"{parts.hostname} is asked by http: the pictures, the scores{token} can be read on "
            "the way; use https"
        )


@dataclass
class HttpClassifier:
    """Scores of an endpoint behind the classifier protocol; the first call is one query.

    Args:
        endpoint: where, and its limits.
        clock, sleep: seconds, monotonic; tests pass their own.

    Raises:
        SpecError: the address is wrong, or the token's variable is not set.
        EndpointError, QueryBudgetError: as `scores`.
    """

    endpoint: Endpoint
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    queries: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._address = self.endpoint.address
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if (name := self.endpoint.token_env) is not None:
            if not os.environ.get(name):
                raise SpecError(
                    f"the environment variable {name} is not set; put the token of "
                    f"{self._address.hostname} into it"
                )
            self._headers["Authorization"] = f"Bearer {os.environ[name]}"
        self._free_at = self.clock()
        self.bounds = UNIT
        self.image_size = self.endpoint.image_size
        self.device = torch.device("cpu")
        self.num_classes = 0  # until the first answer says it
        grey = torch.full((1, 3, self.image_size, self.image_size), 0.5)
        self.num_classes = self.scores(grey).shape[1]

    @property
    def left(self) -> int | None:
        """Queries that may still be asked; None without a budget."""
        budget = self.endpoint.budget
        return None if budget is None else budget - self.queries

    @property
    def batch(self) -> int:
        """Images of one request: of no more than a second's rate."""
        rate = self.endpoint.rate
        return BATCH if rate is None else max(1, min(BATCH, int(rate)))

    def logits(self, images: Tensor) -> Tensor:
        """Refuse: an endpoint grants scores only.

        Raises:
            AccessError: always.
        """
        raise AccessError("an endpoint gives scores and no gradient; use a black-box attack")

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: an endpoint grants scores only.

        Raises:
            AccessError: always.
        """
        raise AccessError("an endpoint gives scores and no features; use a black-box attack")

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Return class probabilities (n, num_classes) of images (n, 3, s, s) in [0, 1].

        Raises:
            QueryBudgetError: the next batch does not fit into the budget; it was not sent.
            EndpointError: no valid answer came before the deadline.
        """
        if images.shape[2:] != (self.image_size, self.image_size):
            images = functional.interpolate(
                images, size=self.image_size, mode="bilinear", antialias=True, align_corners=False
            )
        return torch.cat([self._asked(part) for part in images.split(self.batch)])

    def labels(self, images: Tensor) -> Tensor:
        """Return the likeliest class of each image, int64 (n,)."""
        return self.scores(images).argmax(dim=1)

    def _asked(self, images: Tensor) -> Tensor:
        """Send one batch until it is answered, and validate the answer."""
        body = json.dumps({self.endpoint.fields[0]: [_png(one) for one in from_unit(images)]})
        until = self.clock() + self.endpoint.deadline_s
        pause = FIRST_PAUSE_S
        while True:
            if (left := self.left) is not None and left < len(images):
                raise QueryBudgetError(
                    f"the query budget of {self.endpoint.budget:,} is spent ({left:,} left, the "
                    f"next batch needs {len(images):,}); raise --query-budget for the rest"
                )
            self._keep_rate(len(images))
            status, answer, wanted = self._one_try(body.encode(), len(images), until)
            if status == 200:
                return self._valid(answer, len(images))
            if status not in (0, *REFUSED, *BROKEN):
                raise EndpointError(self._refusal(status))
            wait = pause if wanted is None else wanted
            if self.clock() + wait > until:
                raise EndpointError(self._gave_up(status, answer, wanted))
            self.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _one_try(self, body: bytes, count: int, until: float) -> tuple[int, bytes, float | None]:
        """Return status, answer and the wait that the server asks for; status 0: no answer."""
        parts, timeout = self._address, min(LONGEST_TRY_S, max(0.1, until - self.clock()))
        kind = http.client.HTTPSConnection if parts.scheme == "https" else None
        connection = (kind or http.client.HTTPConnection)(
            str(parts.hostname), parts.port, timeout=timeout
        )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.connect()
            self.queries += count
            # A connection for each request: on one that was kept, a server that hung up meanwhile
            # looks like one that took the images.
            connection.request("POST", path, body, self._headers | {"Connection": "close"})
            response = connection.getresponse()
            answer = response.read(LONGEST_ANSWER)
            status = response.status
            if status in REFUSED:
                self.queries -= count
            return status, answer, _retry_after(response.headers.get("Retry-After"))
        except ssl.SSLCertVerificationError as error:
            raise EndpointError(
                f"the certificate of {parts.hostname} is not valid ({error.verify_message}); "
                "nothing was sent"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            return 0, (str(error) or type(error).__name__).encode(), None
        finally:
            connection.close()

    def _keep_rate(self, count: int) -> None:
        if (rate := self.endpoint.rate) is None:
            return
        now = self.clock()
        if now < self._free_at:
            self.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + count / rate

    def _valid(self, answer: bytes, count: int) -> Tensor:
        """Return scores (count, num_classes) of an answer.

        Raises:
            EndpointError: it is anything else.
        """
        where = f"{self.endpoint.shown} answers"
        try:
            content: Any = json.loads(answer)
        except ValueError as error:
            raise EndpointError(f"{where} with something that is no JSON; see docs/audit.md") from (
                error
            )
        if isinstance(content, dict):
            content = content.get(self.endpoint.fields[1])
        if not isinstance(content, list) or not all(isinstance(row, list) for row in content):
            raise EndpointError(
                f"{where} without a list of score lists under {self.endpoint.fields[1]!r}; name "
                "its fields with --http-fields"
            )
        if len(content) != count:
            raise EndpointError(f"{where} with {len(content)} score lists for {count} images")
        wanted = self.num_classes or len(content[0])
        for row in content:
            if len(row) != wanted:
                raise EndpointError(f"{where} with {len(row)} scores where it had {wanted} before")
            if not all(isinstance(x, int | float) and math.isfinite(x) for x in row):
                raise EndpointError(f"{where} with a score that is no finite number")
        if wanted < 2:
            raise EndpointError(f"{where} with {wanted} scores an image; an audit needs 2 or more")
        found = torch.tensor(content, dtype=torch.float32)
        if self.endpoint.logits:
            return functional.softmax(found, dim=1)
        total = found.sum(dim=1)
        if float(found.min()) < 0 or float((total - 1).abs().max()) > SUM_TOLERANCE:
            worst = float(total[(total - 1).abs().argmax()])
            raise EndpointError(
                f"{where} with scores that are no probabilities (a sum of {worst:.3g}, a least of "
                f"{float(found.min()):.3g}); pass --logits where they are logits"
            )
        return found / total[:, None]

    def _refusal(self, status: int) -> str:
        hint = "see docs/audit.md for what it is asked"
        if status in (401, 403):
            named = self.endpoint.token_env
            hint = (
                f"the token in {named} is not accepted"
                if named
                else "name the environment variable of its token with --token-env"
            )
        elif 300 <= status < 400:
            hint = "it sends the request elsewhere; give the address where it ends up"
        return f"{self.endpoint.shown} refuses with status {status}; {hint}"

    def _gave_up(self, status: int, answer: bytes, wanted: float | None) -> str:
        seconds = f"{self.endpoint.deadline_s:g} s"
        what = f"status {status}" if status else answer.decode(errors="replace")[:120]
        if wanted is not None:
            return (
                f"{self.endpoint.shown} asks to wait {wanted:.0f} s ({what}), more than is left of "
                f"--deadline {seconds}; lower --rate-limit, or raise --deadline"
            )
        return (
            f"{self.endpoint.shown} gave no answer within --deadline {seconds} (last: {what}); see "
            "whether it runs, and raise --deadline where it is slow"
        )


def _png(image: Any) -> str:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format="PNG")
    return base64.b64encode(sink.getvalue()).decode()


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where there is none."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
