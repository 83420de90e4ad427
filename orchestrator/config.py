"""From one YAML file and the `--set` options to the frozen `ExperimentSpec`.

Everything is validated before anything runs, and every mistake has its file, its line and, where a
name is nearly right, the name that was meant. Relative paths in a file mean what they mean on the
command line: they start at the current directory, not at the file's folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from attacks.presets import expand
from orchestrator.config_errors import Override, Source, explain
from orchestrator.search import planned_trials
from orchestrator.spec import ExperimentSpec
from tasks.errors import MissingDataError, SpecError
from tasks.suggestions import did_you_mean

RUN_SPEC = "spec.json"
"""Where a run keeps its experiment; JSON is YAML too."""


def load_spec(path: Path | None, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Load an experiment.

    Args:
        path: a YAML file, or the folder of a run, which keeps its experiment in spec.json; None is
            the built-in experiment, which is all defaults.
        overrides: assignments such as "sweep.trials=12", "attacks.ppa.steps=10" (by name),
            "attacks.0.steps=10" (by position); the value is YAML, and the last one wins.

    Raises:
        MissingDataError: the file does not exist.
        SpecError: the file is not YAML, or a setting is wrong: one line for each mistake.
    """
    raw: Any = {}
    source = Source()
    if path is not None:
        path = path / RUN_SPEC if path.is_dir() else path
        raw, node = _parse(_read(path), lambda line: f"{path}:{line}")
        if node is None:
            raise SpecError(f"{path} holds no settings; `dcdctl init` writes a file to start from")
        if not isinstance(raw, dict):
            raise SpecError(
                f"{path} holds {'a list' if isinstance(raw, list) else repr(raw)} where an "
                "experiment is `key: value` lines; `dcdctl init` writes a file to start from"
            )
        source = Source(str(path), node)
    _expand_attacks(raw, source)
    for option in overrides:
        source.overrides.append(_apply(raw, option))
        _expand_attacks(raw, source)
    try:
        return ExperimentSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, raw, source)) from None


def _expand_attacks(raw: dict[str, Any], source: Source) -> None:
    """Write attacks that are a bare name or start from a preset as mappings of their settings.

    Raises:
        SpecError: no preset has that name.
    """
    for key in ("attacks", "adaptive_attacks"):
        attacks = raw.get(key)
        if not isinstance(attacks, list):
            continue
        for i, attack in enumerate(attacks):
            try:
                attacks[i] = expand(attack)
            except SpecError as error:
                raise SpecError(f"{source.of((key, i))}{error}") from None


def outline(spec: ExperimentSpec) -> dict[str, str]:
    """Say in a few lines what an experiment will do: a heading and a phrase for each.

    Raises:
        SpecError: a grid search over a range.
    """
    data, protected = spec.data, spec.protect.targets
    if data.kind == "builtin":
        classes = data.identities
        source = f"{classes} built-in identities, {data.train_images} training images each"
    else:
        classes = data.private if isinstance(data.private, int) else len(data.private)
        source = f"{classes} classes of {data.root}"
    trials = planned_trials(spec)
    who = str(protected) if isinstance(protected, int) else ", ".join(protected)
    return {
        "experiment": f"{spec.name}, seed {spec.seed}, fingerprint {spec.run_fingerprint}",
        "data": f"{source}, {data.image_size}x{data.image_size} pixels",
        "protected": f"{who} of {classes}",
        "trials": f"{trials} of defences, DCD among them, and the control"
        if spec.sweep.search == "defenses"
        else f"{trials} with DCD ({spec.sweep.search}), and the control",
        "attacks": ", ".join(attack.label for attack in spec.attacks),
        "storage": spec.storage,
    }


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingDataError(
            f"{path} does not exist; `dcdctl init {path}` writes a file to start from"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpecError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: keys are text, none comes twice, and a date is a name.

    YAML reads 1e-3 as text; pydantic makes it a number wherever a number is due.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key.start_mark
                )
            line = key.start_mark.line + 1
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"{key.value!r} is already set in line {seen[key.value]}; keep one of the two",
                    key.start_mark,
                )
            seen[key.value] = line
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _parse(text: str, where: Callable[[int], str]) -> tuple[Any, yaml.Node | None]:
    """Return the content of a YAML text and its root node, None when there is none.

    Args:
        text: one YAML document.
        where: says for a line number what an error starts with.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except yaml.constructor.ConstructorError as error:
        raise SpecError(f"{where(_line(error))}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(filter(None, (error.context, error.problem)))
        if "\\t" in problem:
            problem = "a tab stands where YAML wants spaces"
        raise SpecError(f"{where(_line(error))}: not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise SpecError(f"{where(line)}: not valid YAML: {error.reason}") from None
    except RecursionError:
        raise SpecError(f"{where(1)}: nested too deeply") from None


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return 1 if mark is None else mark.line + 1


def _apply(raw: dict[str, Any], option: str) -> Override:
    """Write one `--set` into the file's content; sections that it lacks start at their default."""
    shown = f"--set {option}"
    key, equals, text = option.partition("=")
    tokens = key.strip().split(".")
    if not equals or not all(tokens):
        raise SpecError(f"{shown}: write key=value, such as --set sweep.trials=12")
    value, _ = _parse(text, lambda _: shown)
    place: Any = raw
    default: Any = ExperimentSpec()
    path: list[str | int] = []
    for i, token in enumerate(tokens):
        if isinstance(place, list):
            step: str | int = _index(place, token, ".".join(tokens[:i]), shown)
        elif isinstance(place, dict):
            step = token
        else:
            raise SpecError(f"{shown}: {'.'.join(tokens[:i])} is a value, not a section")
        path.append(step)
        if i == len(tokens) - 1:
            place[step] = value
            break
        default = _member(default, step)
        if isinstance(step, str) and step not in place:
            place[step] = _seed(default)
        place = place[step]
    return Override(shown, tuple(path))


def _index(items: list[Any], token: str, where: str, shown: str) -> int:
    """Return the position of an item that is named by its position, its title or its name."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    titles = [item.get("title") if isinstance(item, dict) else None for item in items]
    for words in (titles, names):
        if token in words:
            return words.index(token)
    if not re.fullmatch(r"\d+", token):
        known = [name for name in names if isinstance(name, str)]
        raise SpecError(f"{shown}: {where} has no {token!r}{did_you_mean(token, known)}")
    if int(token) >= len(items):
        raise SpecError(f"{shown}: {where} has {len(items)} items, counted from 0")
    return int(token)


def _member(default: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return default[step] if isinstance(default, tuple) and step < len(default) else None
    return getattr(default, step, None)


def _seed(default: Any) -> Any:
    """Return the least that a section must say to be the default one: its tag, if it has one."""
    if isinstance(default, tuple):
        return [_seed(item) for item in default]
    if not isinstance(default, BaseModel):
        return {}
    tags = {key: getattr(default, key) for key in ("kind", "name") if hasattr(default, key)}
    return tags | default.model_dump(mode="json", exclude_unset=True)
