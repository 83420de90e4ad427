"""What cannot be joined is refused in one sentence, soon."""

from __future__ import annotations

import http.server
import json
import platform
import threading
from pathlib import Path

import pytest
import ray
from typer.testing import CliRunner

from clusters.lifecycle import open_cluster
from clusters.token import own_token
from orchestrator.cli import app
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


class Dashboard(http.server.BaseHTTPRequestHandler):
    """Answers as Ray's does, with the versions that it is given."""

    ray, python = ray.__version__, platform.python_version()
    posted = 0

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer t":
            self.send_error(401)
            return
        said = {"/api/version": {"ray_version": self.ray}, "/api/jobs/": []}
        said["/api/v0/cluster_metadata"] = {"data": {"pythonVersion": self.python}}
        body = json.dumps(said[self.path]).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        type(self).posted += 1
        self.send_error(500)

    do_POST = do_PUT

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("what", "there"), [("ray", "2.1.0"), ("python", "3.99.1"), ("python", "2.7")]
)
def test_another_version_is_refused_before_anything_is_sent(
    what: str, there: str, tmp_path: Path
) -> None:
    kind: type[Dashboard] = type("Other", (Dashboard,), {what: there})
    server = http.server.HTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text("t")
    file = tmp_path / "c.yaml"
    file.write_text(
        f"address: http://127.0.0.1:{server.server_port}\ntoken_file: {tmp_path}/token\n"
    )
    words = ["sweep", "--smoke", "--cluster", str(file), "--storage", str(tmp_path / "s")]
    try:
        found = CliRunner(env={"COLUMNS": "300"}).invoke(app, words)
    finally:
        server.shutdown()
        server.server_close()
    assert found.exit_code == 7
    assert f"runs {what.capitalize()} {there}, and here it is " in found.output
    assert "install the same on both" in found.output
    assert kind.posted == 0
    assert not (tmp_path / "s" / "jobs").exists()


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
        "cluster_name: lab\nprovider: {type: local, head_ip: 127.0.0.1}\n"
        f"auth: {{ssh_user: ray, ssh_private_key: {tmp_path}/key}}\n"
    )
    with (
        pytest.raises(ClusterError, match=r"auth.ssh_private_key=.* does not exist"),
        open_cluster(str(path)),
    ):
        pass
