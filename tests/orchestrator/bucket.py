"""An object store for tests: moto's server behind a proxy that can break it on demand."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from moto.server import ThreadedMotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

Fault = str | None
Plan = Callable[[str, int], Fault]
"""Says by method and number of a request what is done to it."""


def denied() -> bytes:
    return (
        b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
        b"<Message>Access Denied</Message></Error>"
    )


class Proxy:
    """Passes requests on, but for those that its plan has a fault for."""

    def __init__(self, to: str) -> None:
        self.to = urlsplit(to).netloc
        self.plan: Plan = lambda method, number: None
        self.count = 0
        self.faults: list[str] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def body(self) -> bytes:
                if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def handle_any(self) -> None:
                body = self.body()
                with outer.lock:
                    outer.count += 1
                    fault = outer.plan(self.command, outer.count)
                    if fault:
                        outer.faults.append(fault)
                if fault in ("500", "503"):
                    return self.answer(int(fault), b"", {})
                if fault == "denied":
                    return self.answer(403, denied(), {"Content-Type": "application/xml"})
                if fault == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return None
                if fault == "slow":
                    time.sleep(2)
                link = http.client.HTTPConnection(outer.to, timeout=30)
                hop = ("expect", "transfer-encoding", "content-length", "connection")
                headers = {k: v for k, v in self.headers.items() if k.lower() not in hop}
                link.request(self.command, self.path, body or None, headers)
                answer = link.getresponse()
                data = answer.read()
                dropped = ("content-length", "transfer-encoding", "connection")
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in dropped}
                length = answer.getheader("Content-Length")
                self.answer(answer.status, data, kept, length, torn=fault == "truncated")
                return None

            def answer(
                self,
                status: int,
                data: bytes,
                headers: dict[str, str],
                length: str | None = None,
                torn: bool = False,
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if torn else data)
                if torn:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def object_server() -> Iterator[str]:
    """Run an S3 with a bucket `results` that is empty."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        url = f"http://{host}:{port}"
        made = urllib.request.Request(f"{url}/results", method="PUT")  # noqa: S310  (loopback)
        urllib.request.urlopen(made).close()  # noqa: S310
        yield url
    finally:
        running.stop()
