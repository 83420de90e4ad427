"""A small real server that answers pictures with a model's scores, and can be made to misbehave."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass
class ModelServer:
    """What it answers, and what it saw.

    Attributes:
        model: (n, 3, s, s) in [0, 1] to scores.
        trouble: one entry a request, first to last: a status, (status, Retry-After), "hang up", or
            "slow", which looks at the pictures and answers too late; None answers at once.
        answer: instead of the scores, made of them.
        queries: images that the model looked at.
        requests: all of them, refused ones too.
        shown: sizes of the pictures.
        tokens: Authorization headers.
    """

    model: Callable[[Tensor], Tensor]
    trouble: list[Any] = field(default_factory=list)
    answer: Callable[[list[list[float]]], Any] | None = None
    slow_s: float = 0.6
    queries: int = 0
    requests: int = 0
    shown: set[tuple[int, int]] = field(default_factory=set)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: ModelServer) -> Iterator[ModelServer]:
    """Serve on the loopback address inside."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests += 1
            server.tokens.append(self.headers.get("Authorization"))
            trouble = server.trouble.pop(0) if server.trouble else None
            if isinstance(trouble, int | tuple):
                status, wait = trouble if isinstance(trouble, tuple) else (trouble, None)
                self.send_response(status)
                if wait is not None:
                    self.send_header("Retry-After", str(wait))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            pictures = [
                np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
                for text in body["images"]
            ]
            server.queries += len(pictures)
            if trouble == "hang up":
                return
            server.shown |= {picture.shape[:2] for picture in pictures}
            stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                scores = server.model(stack).tolist()
            if trouble == "slow":
                time.sleep(server.slow_s)
            content = {"scores": scores} if server.answer is None else server.answer(scores)
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                pass  # who asked has gone

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    listener = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/score"
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
