"""What an experiment file may hold, read off the JSON Schema of `ExperimentSpec`.

The commented file of `dcdctl init`, the table in docs/configuration.md and the did-you-mean of
errors all come from here, so that none of them can go stale.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec import ExperimentSpec

Schema = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One group of settings: an object of the schema."""

    path: str
    """Dotted, "" at the root."""
    variant: str
    """Which of several it is, such as "kind: folder"; "" where there is only one."""
    description: str
    properties: dict[str, Schema]
    required: frozenset[str]


@functools.cache
def json_schema() -> Schema:
    """Return the JSON Schema of an experiment file."""
    schema = ExperimentSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


SAME_AS_ATTACKS = "adaptive_attacks"
"""A list of the same groups as `attacks`: described there, and one line here."""


def sections(node: Schema | None = None, path: str = "") -> Iterator[Section]:
    """Yield every group of settings, outer ones first."""
    for group in _groups(json_schema() if node is None else node):
        properties = group["properties"]
        yield Section(
            path,
            ", ".join(f"{key}: {p['const']}" for key, p in properties.items() if "const" in p),
            group.get("description", ""),
            {k: p for k, p in properties.items() if not is_section(p) or _is_a_line(k, p)},
            frozenset(group.get("required", ())),
        )
        for key, p in properties.items():
            if is_section(p) and key != SAME_AS_ATTACKS:
                yield from sections(p.get("items", p), f"{path}.{key}".lstrip("."))


def _is_a_line(key: str, node: Schema) -> bool:
    """Say whether a list of groups has a line of its own: its items are elsewhere, or none."""
    return key == SAME_AS_ATTACKS or node.get("default") == []


def is_section(node: Schema) -> bool:
    """Say whether a setting is a group of its own: an object, one of several, or a list of them."""
    return bool(_groups(node.get("items", node))) and "anyOf" not in node


def node_at(raw: Any, path: Sequence[str | int]) -> Schema:
    """Return the schema of the setting at `path`, given what the file says on the way.

    Args:
        raw: the file's content; its `kind` and `name` tell which variant of a section it means.
        path: keys and list indices.

    Raises:
        KeyError: the schema knows no such setting.
    """
    node = json_schema()
    for token in path:
        if isinstance(token, int):
            found = [option["items"] for option in _options(node) if "items" in option]
        else:
            found = [
                option.get("properties", {}).get(token) or option.get("additionalProperties")
                for option in _options(node)
                if _fits(option, raw)
            ]
        node = next(filter(None, found), {})
        if not node:
            raise KeyError(token)
        raw = raw[token] if isinstance(token, int) else raw.get(token)
    return node


def known_keys(raw: Any, path: Sequence[str | int]) -> list[str]:
    """Return the keys of the section at `path`; the arguments are those of `node_at`."""
    content = functools.reduce(lambda inner, token: inner[token], path, raw)
    groups = [group for group in _groups(node_at(raw, path)) if _fits(group, content)]
    return list(dict.fromkeys(key for group in groups for key in group["properties"]))


def matching(node: Schema, values: dict[str, Any]) -> Schema:
    """Return the variant of a section that `values` are."""
    return next(group for group in _groups(node) if _fits(group, values))


def _options(node: Schema) -> list[Schema]:
    """Return the alternatives of a setting, references followed."""
    if "$ref" in node:
        return [json_schema()["$defs"][node["$ref"].rpartition("/")[2]]]
    if nested := node.get("oneOf", node.get("anyOf")):
        return [option for one in nested for option in _options(one)]
    return [node]


def _groups(node: Schema) -> list[Schema]:
    return [option for option in _options(node) if "properties" in option]


def _fits(option: Schema, raw: Any) -> bool:
    """Say whether an object's tags (constants, such as kind: folder) are those of `raw`."""
    return isinstance(raw, dict) and all(
        raw.get(key, p.get("default")) == p["const"]
        for key, p in option.get("properties", {}).items()
        if "const" in p
    )


def tags(node: Schema) -> list[str]:
    """Return the names that tell the variants of a section apart, such as builtin and folder."""
    tag = node["discriminator"]["propertyName"]
    return [group["properties"][tag]["const"] for group in _groups(node)]


def choices(node: Schema) -> list[str]:
    """Return the words that a setting may be, such as auto and train."""
    listed = [option.get("enum", [option.get("const")]) for option in _options(node)]
    return [word for words in listed for word in words if word is not None]


def allowed(node: Schema) -> str:
    """Return in words what a setting may hold, such as "a number from 0 to 1"."""
    if "discriminator" in node:
        return f"a section with {node['discriminator']['propertyName']}: {either(tags(node))}"
    if "$ref" in node:
        return "{" + ", ".join(_groups(node)[0]["properties"]) + "}"
    if "anyOf" in node:
        nested = [option.get("enum", [allowed(option)]) for option in node["anyOf"]]
        return either([word for words in nested for word in words])
    if "enum" in node or "const" in node:
        return either([str(value) for value in node.get("enum", [node.get("const")])])
    if node["type"] == "array":
        word, least = allowed(node["items"]), node.get("minItems", 0)
        for singular, plural in _PLURALS.items():
            if word.startswith(singular):
                word = plural + word.removeprefix(singular)
        return f"a list of {word}" + (f" (at least {least})" if least else "")
    name = "a path" if node.get("format") == "path" else _NAMES[node["type"]]
    return name + _limits(node)


_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping",
}
_PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "a section": "sections",
    "text": "names",
}


def either(words: Sequence[str]) -> str:
    """Join words as in "a, b or c"."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _limits(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    limits = [
        (" at least {:g}", low),
        (" above {:g}", node.get("exclusiveMinimum")),
        (" at most {:g}", high),
        (" below {}", node.get("exclusiveMaximum")),
        (" matching {}", node.get("pattern")),
        (" of up to {} characters", node.get("maxLength")),
        (" that is not empty", node.get("minLength")),
    ]
    return " and".join(text.format(value) for text, value in limits if value is not None)
