"""What of an experiment's settings may leave the data store.

Class names of a folder are people's names, and paths often hold one more: reports and tracking see
how many there are, never which.
"""

from __future__ import annotations

from typing import Any

from orchestrator.spec import ExperimentSpec


def public_settings(spec: ExperimentSpec) -> dict[str, Any]:
    """Return the spec as JSON-like data without names of people and without paths."""
    settings = spec.model_dump(mode="json", exclude={"storage", "tracking"})
    data, protect = settings["data"], settings["protect"]
    if data["kind"] == "folder":
        data["root"] = "(not shown)"
        for group in ("private", "surrogates", "public"):
            if isinstance(data[group], list):
                data[group] = f"{len(data[group])} classes"
        if data["public_from"] is not None:
            data["public_from"]["root"] = "(not shown)"
    if isinstance(protect["targets"], list):
        protect["targets"] = len(protect["targets"])
    if isinstance(protect["surrogates"], dict):
        protect["surrogates"] = f"chosen by hand for {len(protect['surrogates'])} targets"
    for file in ("surrogate_list", "embedding"):
        if protect[file] not in (None, "pixels"):
            protect[file] = "a file"
    if settings["evaluation"]["embedding"]["path"] is not None:
        settings["evaluation"]["embedding"]["path"] = "a file"
    settings["dcd"] = spec.dcd.public()
    if settings["prior"]["source"] not in ("auto", "shipped", "train"):
        settings["prior"]["source"] = "a file"
    return settings


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names; lists of sections go by the section's name."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {section.get("name", str(i)): section for i, section in enumerate(value)}
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
