"""Pydantic's errors as sentences: where it stands, what is wrong, what may stand there."""

from __future__ import annotations

import difflib
import reprlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.settings import allowed, choices, either, known_keys, node_at, tags
from tasks.suggestions import did_you_mean

Location = tuple[str | int, ...]
"""Keys and list indices from the root of the file to a setting."""


@dataclass(frozen=True)
class Override:
    """A `--set` as it was typed, and the setting that it wrote."""

    option: str
    path: Location


@dataclass
class Source:
    """Where each setting was written: a line of a file, or an option."""

    file: str | None = None
    root: yaml.Node | None = None
    overrides: list[Override] = field(default_factory=list)

    def of(self, path: Location) -> str:
        """Return what an error at `path` starts with, such as "faces.yaml:12: "."""
        for override in reversed(self.overrides):
            if path[: len(override.path)] == override.path:
                return f"{override.option}: "
        if line := self.line(path):
            return f"{self.file}:{line}: "
        below = [o.option for o in self.overrides if o.path[: len(path)] == path]
        return f"{' '.join(below)}: " if below else f"{self.file}: " if self.file else ""

    def line(self, path: Location) -> int:
        """Return the line of a setting, or of the section that lacks it; 0 if in no line."""
        node, line = self.root, 0
        for token in path:
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == token]
                if not pairs:
                    break
                line, node = pairs[-1][0].start_mark.line + 1, pairs[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(token, int):
                node = node.value[token]
                line = node.start_mark.line + 1
        return line


def explain(error: ValidationError, raw: Any, source: Source) -> str:
    """Return one sentence, or a heading and one line for each mistake.

    Args:
        error: what `ExperimentSpec.model_validate(raw)` raised.
        raw: the content of the file, with the overrides applied.
        source: where the settings were written.
    """
    mistakes = sorted(_mistakes(error, raw), key=lambda mistake: source.line(mistake[0]))
    lines = list(dict.fromkeys(source.of(path) + text for path, text in mistakes))
    if len(lines) == 1:
        return lines[0]
    return "\n  ".join([f"{len(lines)} settings are wrong:", *lines])


def _mistakes(error: ValidationError, raw: Any) -> Iterator[tuple[Location, str]]:
    """Yield (path, sentence), with the many errors of one union put together."""
    unions: dict[Location, dict[str, list[tuple[Location, Any]]]] = {}
    for detail in error.errors(include_url=False):
        path, union, branch = _place(detail, raw)
        if detail["type"] == "too_short" and len(_value(raw, path)) >= detail["ctx"]["min_length"]:
            continue  # pydantic counts only the valid items, and those that are not have their say
        if branch is None:
            at = path[:-1] if detail["type"] == "missing" else path
            yield at, _sentence(path, detail, raw)
        else:
            unions.setdefault(union, defaultdict(list))[branch].append((path, detail))
    for union, branches in unions.items():
        # A branch that complains about the value as a whole is not the one that was meant.
        meant = [
            one
            for found in branches.values()
            if all(path != union or detail["type"] in _INSIDE for path, detail in found)
            for one in found
        ]
        yield from ((path, _sentence(path, detail, raw)) for path, detail in meant)
        if not meant:
            yield union, _must_be(union, raw)


_INSIDE = ("value_error", "too_short")


def _place(detail: Any, raw: Any) -> tuple[Location, Location, str | None]:
    """Return the path of a setting, and the union and the branch of it that complains.

    Pydantic's `loc` has keys and indices, and between them the names of union branches, which are
    in no file: the tag of a discriminated union (skipped), or the name of a type.
    """
    path: list[str | int] = []
    union: Location = ()
    branch = None
    here = raw
    for token in detail["loc"]:
        if _holds(here, token):
            path.append(token)
            here = here[token]
        elif detail["type"] == "missing" and token == detail["loc"][-1]:
            path.append(token)
        elif not (isinstance(here, dict) and token in (here.get("kind"), here.get("name"))):
            union, branch = tuple(path), str(token)
    return tuple(path), union, branch


def _holds(here: Any, token: str | int) -> bool:
    return (
        isinstance(here, list)
        if isinstance(token, int)
        else (isinstance(here, dict) and token in here)
    )


def _sentence(path: Location, detail: Any, raw: Any) -> str:
    match detail["type"]:
        case "extra_forbidden":
            section, key = path[:-1], str(path[-1])
            where = f" in {_dotted(section, raw)}" if section else ""
            return f"unknown key {key!r}{where}{did_you_mean(key, known_keys(raw, section))}"
        case "missing":
            node = node_at(raw, path)
            about = node.get("description", "").split(". ")[0].rstrip(".")
            meaning = f" ({about[0].lower()}{about[1:]})" if about else ""
            return f"{_dotted(path, raw)}{meaning} is missing; it must be {allowed(node)}"
        case "union_tag_not_found":
            return f"{_dotted(path, raw)} must be {allowed(node_at(raw, path))}"
        case "union_tag_invalid":
            known = tags(node_at(raw, path))
            return _rejected((*path, detail["ctx"]["discriminator"].strip("'")), raw, known)
        case "value_error":
            return (f"{_dotted(path, raw)}: " if path else "") + str(detail["ctx"]["error"])
        case _:
            return _must_be(path, raw)


def _must_be(path: Location, raw: Any) -> str:
    node = node_at(raw, path)
    value = _value(raw, path)
    quote = node.get("type") == "string" and isinstance(value, bool | int | float)
    return _rejected(path, raw, choices(node), allowed(node)) + (
        "; write it in quotes" if quote else ""
    )


def _rejected(path: Location, raw: Any, known: Sequence[str], words: str | None = None) -> str:
    value = _value(raw, path)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{_dotted(path, raw)} is {_shown(value)} and must be {words or either(known)}{hint}"


def _value(raw: Any, path: Sequence[str | int]) -> Any:
    for token in path:
        raw = raw[token]
    return raw


def _dotted(path: Location, raw: Any) -> str:
    """Write a path as `--set` takes it: items that have a name by their name."""
    words = []
    for i, token in enumerate(path):
        item = _value(raw, path[: i + 1]) if isinstance(token, int) else None
        words.append(str(item.get("name", token) if isinstance(item, dict) else token))
    return ".".join(words)


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    return "an empty list" if value == [] else reprlib.repr(value)
