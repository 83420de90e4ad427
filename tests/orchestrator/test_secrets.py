"""The storage's keys are handed to nobody by a way that is logged."""

from __future__ import annotations

import pytest


def test_tune_hands_on_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution import class_cache

    from orchestrator.tune_adapter import _keep_secrets_here

    given: list[dict[str, str]] = []

    def remote(runtime_env: dict[str, dict[str, str]]) -> object:
        given.append(runtime_env["env_vars"])
        return lambda found: found

    monkeypatch.setattr(class_cache.ray, "remote", remote)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "secret")
    _keep_secrets_here()
    class_cache._ActorClassCache().get(object)
    assert given
    assert "secret" not in given[0].values()
