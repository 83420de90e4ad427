"""Following a job whose head is another one by now."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from clusters.handle import ClusterHandle
from clusters.jobs import JobLostError, Jobs

ANSWERS = {
    "/api/version": {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"},
    "/api/jobs/": [],
}
"""Of a head that has just started: it was given no job yet."""


class NewHead(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802
        found = ANSWERS.get(self.path)
        data = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


# Ray's client and the web library under it do not agree on how to ask for TLS's default.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated")


@pytest.fixture
def head() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NewHead)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_job_that_was_lost_with_its_head_is_one_sentence_at_once(head: str) -> None:
    jobs = Jobs(ClusterHandle("lab", head, None, "head"))
    started = time.monotonic()
    with pytest.raises(JobLostError, match=r"knows no job gone: its head was lost.*--resume"):
        list(jobs.follow("gone"))
    assert time.monotonic() - started < 30
