"""The base of everything that people or files write down: closed and frozen."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of every spec: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def fingerprint(value: Any, *, digits: int = 12) -> str:
    """Return a short hash of any JSON-like value, the same on every machine.

    Args:
        value: a spec, or nested dicts, lists and scalars.
        digits: hexadecimal digits to keep; 12 are 48 bits.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_dump)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _dump(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")
