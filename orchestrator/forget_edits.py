"""What can be taken out of a text without making it false: rows of one person, and their name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

SHORTEST = 6
"""Characters of a name that is looked for in running text; shorter ones are parts of other words.
As a value of its own, and as a part of a path, every name is looked for."""


def is_distinctive(name: str) -> bool:
    """Say whether a name can be looked for in running text."""
    return len(name) >= SHORTEST and not name.isdigit()


def without_person(text: bytes, name: str, marker: str, pseudonyms: Collection[str]) -> bytes:
    """Return a JSON file, or one of JSON lines, without a person.

    Rows of theirs, under one of their pseudonyms, are left out; a value that is such a row becomes
    null. Their name becomes the marker. What says nothing of them stays byte for byte.

    Args:
        text: the file.
        name: of the person.
        marker: what stands for it.
        pseudonyms: under which records know them.
    """
    try:
        value = json.loads(text)
    except ValueError:
        lines = text.split(b"\n")
        return b"\n".join(_line(line, name, marker, pseudonyms) for line in lines)
    changed = _without(value, name, marker, pseudonyms)
    if changed == value:
        return text
    return (json.dumps(changed, indent=2) + "\n").encode()


def _line(line: bytes, name: str, marker: str, pseudonyms: Collection[str]) -> bytes:
    try:
        value = json.loads(line)
    except ValueError:  # torn, or no JSON: readers pass it over
        found = _text(line.decode(errors="replace"), name, marker)
        return line if found == line.decode(errors="replace") else found.encode()
    changed = _without(value, name, marker, pseudonyms)
    return line if changed == value else json.dumps(changed).encode()


def _without(value: Any, name: str, marker: str, pseudonyms: Collection[str]) -> Any:
    if isinstance(value, list):
        kept = [one for one in value if not _is_row_of(one, pseudonyms)]
        return [_without(one, name, marker, pseudonyms) for one in kept]
    if isinstance(value, dict):
        return {
            _text(key, name, marker): None
            if _is_row_of(one, pseudonyms)
            else _without(one, name, marker, pseudonyms)
            for key, one in value.items()
            if key not in pseudonyms
        }
    return _text(value, name, marker) if isinstance(value, str) else value


def _is_row_of(value: Any, pseudonyms: Collection[str]) -> bool:
    return isinstance(value, dict) and value.get("pseudonym") in pseudonyms


def _text(text: str, name: str, marker: str) -> str:
    """Replace a name that is the whole text, a part of a path, or, if distinctive, a word."""
    if text == name:
        return marker
    if "/" in text:
        parts = [marker if part == name else part for part in text.split("/")]
        text = "/".join(parts)
    if is_distinctive(name):
        pattern = rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9A-Za-z])"
        text = re.sub(pattern, marker, text)
    return text


def names_people(data: bytes, names: Sequence[str]) -> bool:
    """Say whether any of some words can stand in a JSON file, as it writes them."""
    forms = {form for name in names for form in (name, json.dumps(name)[1:-1])}
    return any(form.encode() in data for form in forms)
