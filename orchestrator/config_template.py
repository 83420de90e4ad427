"""The commented file of `dcdctl init`, and the settings table of docs/configuration.md.

Both are written from the descriptions and the defaults of the spec. Refresh the table with
`dcdctl schema --markdown`.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.settings import (
    SAME_AS_ATTACKS,
    Schema,
    allowed,
    is_section,
    json_schema,
    matching,
    sections,
    tags,
)
from orchestrator.spec import ExperimentSpec
from tasks.errors import SpecError

WIDTH = 100
COMMENT_COLUMN = 38

EXAMPLES: dict[str, Any] = {
    "root": "photos",
    "private": ["anna", "ben", "carla"],
    "surrogates": ["dora", "emil"],
    "public": ["frida", "georg", "hanna"],
}
"""What the folder variant shows for the settings that have no default."""

_HEAD = """\
An experiment for dcdctl. Every value here is the default: keep what you change, delete the rest.
Paths start at the directory in which dcdctl is called.
  dcdctl validate {path}     says what it means
  dcdctl sweep {path}        runs it
"""


def template(path: str) -> str:
    """Return a commented experiment file whose settings are the defaults.

    Args:
        path: where the file will lie, for the commands in its head.
    """
    values = ExperimentSpec().model_dump(mode="json")
    head = [f"# {line}" for line in _HEAD.format(path=shlex.quote(path)).splitlines()]
    return "\n".join([*head, "", *_section(json_schema(), values, "")]) + "\n"


def write_template(path: Path, *, force: bool = False) -> None:
    """Write a commented experiment file.

    Raises:
        SpecError: the file exists and `force` is not given, or it cannot be written.
    """
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(template(str(path)))
    except FileExistsError:
        raise SpecError(f"{path} exists; give another name, or overwrite it with --force") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise SpecError(f"{path} cannot be written: {error.strerror}") from None


def folder_variant() -> list[str]:
    """Return the lines of a `data` section for a folder of images, with example values."""
    folder = next(s for s in sections() if s.path == "data" and s.variant == "kind: folder")
    lines = ["data:", "  kind: folder"]
    for key, node in folder.properties.items():
        if "const" not in node:
            value = EXAMPLES[key] if key in folder.required else node["default"]
            lines += _setting("  ", key, value, node["description"])
    return lines


def _section(node: Schema, values: dict[str, Any], pad: str) -> Iterator[str]:
    """Yield the lines of one section and of those inside it."""
    for key, child in matching(node, values)["properties"].items():
        value = values[key]
        if not is_section(child):
            yield from _setting(pad, key, value, child.get("description", ""))
            continue
        if not pad:
            yield ""
        if key == SAME_AS_ATTACKS:  # by name: each is what the name stands for
            yield from _comment(pad, child["description"])
            yield f"{pad}{key}:"
            yield from (f"{pad}  - adaptive-{attack['strategy']}" for attack in value)
            continue
        if value == []:
            about = f"{child['description']} There are {', '.join(tags(child['items']))}."
            yield from _setting(pad, key, value, about)
            continue
        if isinstance(value, list):
            if key == "attacks":
                others = [name for name in tags(child["items"]) if name not in _names(value)]
                yield from _comment(
                    pad,
                    f"Further attacks: {', '.join(others)}; by name alone, as adaptive- and a "
                    "strategy, or from a published preset such as {preset: ppa/celeba-ffhq}. Their "
                    "settings are in docs/configuration.md.",
                )
            yield f"{pad}{key}:"
            for item in value:
                yield from _comment(pad + "  ", matching(child["items"], item)["description"])
                first, *rest = _section(child["items"], item, pad + "    ")
                yield f"{pad}  - {first.lstrip()}"
                yield from rest
            continue
        yield from _comment(pad, matching(child, value)["description"])
        if key == "defense":
            others = [name for name in tags(child) if name != value["name"]]
            preset = ", or from a published preset such as {preset: mid/celeba-vgg16}"
            yield from _comment(
                pad,
                f"Others: {', '.join(others)}; by name alone{preset if 'preset' in value else ''}. "
                "Their settings are in docs/configuration.md.",
            )
        yield f"{pad}{key}:"
        yield from _section(child, value, pad + "  ")
        if key == "data":
            yield "# Your own images instead, one folder for each class:"
            yield from (f"# {line}" for line in folder_variant())


def _names(attacks: list[dict[str, Any]]) -> set[str]:
    return {attack["name"] for attack in attacks}


def _setting(pad: str, key: str, value: Any, about: str) -> Iterator[str]:
    """Yield `key: value  # about`, with the comment above where the line would be too long."""
    text = f"{pad}{key}: {_flow(value)}"
    line = f"{text:<{COMMENT_COLUMN - 2}}  # {about}" if about else text
    if len(line) > WIDTH:
        yield from _comment(pad, about)
        line = text
    yield line


def _comment(pad: str, about: str) -> list[str]:
    return textwrap.wrap(about, WIDTH - 2, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")


def _flow(value: Any) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.splitlines()[0]


def _default(key: str, node: dict[str, Any]) -> str:
    if key == SAME_AS_ATTACKS:  # by name, as the file may have them
        return _flow([f"adaptive-{attack['strategy']}" for attack in node["default"]])
    return _flow(node["default"])


def settings_table() -> str:
    """Return all settings as Markdown: one table for each section."""
    parts = []
    for section in sections():
        variant = f" with `{section.variant}`" if section.variant else ""
        title = f"`{section.path}`{variant}" if section.path else "At the top"
        parts += [f"### {title}", "", section.description, ""]
        parts += ["| setting | default | may be | meaning |", "|---|---|---|---|"]
        for key, node in section.properties.items():
            if "const" not in node:
                default = "required" if key in section.required else f"`{_default(key, node)}`"
                about = node.get("description", "")
                parts.append(f"| `{key}` | {default} | {allowed(node)} | {about} |")
        parts.append("")
    return "\n".join(parts)
