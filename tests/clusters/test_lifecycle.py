"""What cannot be joined is refused in one sentence, soon."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

from clusters.lifecycle import open_cluster, own_token
from tasks.errors import ClusterError


def test_nobody_answers() -> None:
    with (
        pytest.raises(ClusterError, match="does not answer at http://127.0.0.1:9"),
        open_cluster("http://127.0.0.1:9"),
    ):
        pass


def test_something_else_answers() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(ClusterError, match="is no Ray dashboard"), open_cluster(address):
            pass
    finally:
        server.shutdown()
        server.server_close()


def test_a_token_is_made_once_and_is_the_persons_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = own_token()
    first = path.read_text()
    assert len(first) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert own_token().read_text() == first


def test_a_key_that_is_not_there_is_said_before_anything_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "cluster_name: lab\nprovider: {type: local, head_ip: 127.0.0.1, worker_ips: []}\n"
        f"auth: {{ssh_user: ray, ssh_private_key: {tmp_path}/key}}\n"
    )
    with (
        pytest.raises(ClusterError, match=r"auth.ssh_private_key=.* does not exist"),
        open_cluster(str(path)),
    ):
        pass
