"""Scores of a real server over HTTP: counted, limited, tried again, and validated."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.errors import AccessError, EndpointError, QueryBudgetError, SpecError
from tasks.http_classifier import Endpoint, HttpClassifier
from tests.model_server import ModelServer, serving


def colours(images: Tensor) -> Tensor:
    """Four classes by the mean colour."""
    mean = images.mean(dim=(2, 3))
    return torch.softmax(torch.cat([mean, 1 - mean[:, :1]], dim=1) * 8, dim=1)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving(ModelServer(colours)) as running:
        yield running


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def ask(server: ModelServer, **changes: Any) -> tuple[HttpClassifier, Clock]:
    clock = Clock()
    settings: dict[str, Any] = {"url": server.url, "image_size": 8} | changes
    endpoint = Endpoint(**settings)
    return HttpClassifier(endpoint, clock, clock.sleep), clock


def pictures(count: int, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def test_scores_are_those_of_the_model_up_to_eight_bits(server: ModelServer) -> None:
    model, _ = ask(server)
    images = pictures(70)
    assert model.num_classes == 4
    assert torch.allclose(model.scores(images), colours(images), atol=0.02)
    assert torch.equal(model.labels(images), model.scores(images).argmax(dim=1))
    assert model.queries == server.queries == 1 + 3 * 70
    model.scores(pictures(2, size=20))
    assert server.shown == {(8, 8)}


def test_there_is_no_gradient(server: ModelServer) -> None:
    model, _ = ask(server)
    with pytest.raises(AccessError, match="no gradient"):
        model.logits(pictures(1))
    with pytest.raises(AccessError, match="no features"):
        model.embed(pictures(1))


def test_not_one_query_is_asked_beyond_the_budget(server: ModelServer) -> None:
    model, _ = ask(server, budget=1 + 32 + 10)
    with pytest.raises(QueryBudgetError, match=r"budget of 43 is spent \(10 left, the next"):
        model.scores(pictures(64))
    assert model.queries == server.queries == 33
    assert len(model.scores(pictures(10))) == 10
    with pytest.raises(QueryBudgetError):
        model.scores(pictures(1))
    assert model.queries == server.queries == 43


def test_a_refusal_is_tried_again_and_is_no_query(server: ModelServer) -> None:
    model, clock = ask(server)
    server.trouble = [429, 503, (429, 7), None]
    model.scores(pictures(3))
    assert clock.slept == [0.5, 1.0, 7.0]
    assert model.queries == server.queries == 4
    assert server.requests == 5


def test_retry_after_may_be_a_date(server: ModelServer) -> None:
    model, clock = ask(server)
    server.trouble = [(503, formatdate(time.time() + 20, usegmt=True))]
    model.scores(pictures(1))
    assert 17 < clock.slept[0] <= 20


def test_what_the_server_may_have_looked_at_is_a_query(server: ModelServer) -> None:
    model, _ = ask(server)
    server.trouble = ["hang up", 500]
    model.scores(pictures(5))
    assert server.queries == 1 + 5 + 5  # a status 500 here looked at nothing
    assert model.queries == 1 + 5 + 5 + 5


def test_a_slow_answer_is_asked_for_again_until_the_deadline(server: ModelServer) -> None:
    endpoint = Endpoint(server.url, 8, deadline_s=0.5)
    model = HttpClassifier(endpoint)
    server.trouble = ["slow"]
    with pytest.raises(EndpointError, match=r"gave no answer within --deadline 0.5 s \(last: time"):
        model.scores(pictures(2))
    assert model.queries == server.queries == 3


def test_lost_queries_count_against_the_budget(server: ModelServer) -> None:
    model, _ = ask(server, budget=7)
    server.trouble = ["hang up"]
    with pytest.raises(QueryBudgetError, match="2 left, the next batch needs 4"):
        model.scores(pictures(4))
    assert model.queries == server.queries == 5


def test_the_rate_is_kept(server: ModelServer) -> None:
    model, clock = ask(server, rate=10.0)
    model.scores(pictures(40))
    assert clock.now == pytest.approx((1 + 30) / 10)  # the last ten may go at once
    assert server.requests == 5


def test_an_endpoint_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/score"
    clock = Clock()
    with pytest.raises(EndpointError, match=r"gave no answer within --deadline 9 s .*refused"):
        HttpClassifier(Endpoint(url, 8, deadline_s=9), clock, clock.sleep)
    assert clock.slept == [0.5, 1, 2, 4]


def test_a_wait_beyond_the_deadline_is_not_waited_for(server: ModelServer) -> None:
    model, clock = ask(server)
    server.trouble = [(429, 3600)]
    with pytest.raises(EndpointError, match="asks to wait 3600 s .*lower --rate-limit"):
        model.scores(pictures(1))
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "--token-env"), (302, "sends the request elsewhere"), (404, "docs/audit.md")],
)
def test_other_refusals_are_final(server: ModelServer, status: int, hint: str) -> None:
    model, clock = ask(server)
    server.trouble = [status]
    with pytest.raises(EndpointError, match=f"status {status}; .*{hint}"):
        model.scores(pictures(1))
    assert clock.slept == []


GARBAGE: dict[str, tuple[Any, str]] = {
    "no json": (lambda _: b"<html>", "no JSON"),
    "no list": (lambda _: {"scores": "high"}, "without a list of score lists"),
    "other field": (lambda s: {"answers": s}, "--http-fields"),
    "too few": (lambda s: s[1:], "1 score lists for 2 images"),
    "classes": (lambda s: [row[:3] for row in s], "3 scores where it had 4 before"),
    "nan": (lambda s: json.dumps(s).replace("0.", "NaN, 0.", 1).encode(), "4 before"),
    "not finite": (lambda s: [[float("nan"), *row[1:]] for row in s], "no finite number"),
    "text": (lambda s: [["a", *row[1:]] for row in s], "no finite number"),
    "logits": (lambda s: [[9 * x for x in row] for row in s], "pass --logits"),
    "negative": (lambda s: [[-0.5, 0.5, 0.5, 0.5] for _ in s], "no probabilities"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named(server: ModelServer, name: str) -> None:
    model, _ = ask(server)
    server.answer, sentence = GARBAGE[name]
    with pytest.raises(EndpointError, match=sentence):
        model.scores(pictures(2))


def test_logits_and_bare_lists_are_taken(server: ModelServer) -> None:
    server.answer = lambda s: [[float(torch.tensor(x).log()) + 3 for x in row] for row in s]
    model, _ = ask(server, logits=True)
    images = pictures(5)
    assert torch.allclose(model.scores(images), colours(images), atol=0.02)


def test_the_token_comes_from_the_environment_and_is_never_shown(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_TOKEN", "s3cret")
    model, _ = ask(server, token_env="FACE_TOKEN")  # noqa: S106
    assert server.tokens == ["Bearer s3cret"]
    server.trouble = [403]
    with pytest.raises(EndpointError, match="the token in FACE_TOKEN is not accepted") as found:
        model.scores(pictures(1))
    assert "s3cret" not in str(found.value) + repr(model)
    monkeypatch.delenv("FACE_TOKEN")
    with pytest.raises(SpecError, match="FACE_TOKEN is not set"):
        ask(server, token_env="FACE_TOKEN")  # noqa: S106


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://faces.example/score", True),
        ("https://faces.example/score", False),
        ("http://localhost:8000/", False),
        ("http://[::1]:8000/", False),
    ],
)
def test_http_to_another_machine_is_warned_of(url: str, warned: bool) -> None:
    warning = Endpoint(url, 8).warning
    assert (warning is not None) == warned
    if warning is not None:
        assert "can be read on the way; use https" in warning


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(SpecError, match="holds a user or a password") as found:
        _ = Endpoint("https://me:pw@faces.example/", 8).address
    assert "pw" not in str(found.value).replace("password", "")
    assert Endpoint("https://h.example/a?key=pw", 8).shown == "https://h.example/a"
    with pytest.raises(SpecError, match="is no http"):
        _ = Endpoint("ftp://h.example/", 8).address
