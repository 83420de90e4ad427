"""One YAML file and `--set` options to an ExperimentSpec, and a sentence for every mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.config import load_spec, outline
from orchestrator.config_template import folder_variant, settings_table, template, write_template
from orchestrator.settings import allowed, json_schema, node_at, sections
from orchestrator.spec import ExperimentSpec
from tasks.errors import MissingDataError, SpecError

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = "kind: folder, root: x, public: [p], surrogates: [s]"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "faces.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- what loads ---------------------------------------------------------------------------------


def test_no_file_is_the_built_in_experiment() -> None:
    assert load_spec(None) == ExperimentSpec()


def test_numbers_like_1e_3_are_numbers(tmp_path: Path) -> None:
    text = "training: {learning_rate: 1e-3}\nsweep: {space: {target_sigma: [1e-2, .5]}}"
    spec = load_spec(written(tmp_path, text))
    assert spec.training.learning_rate == 0.001
    assert spec.sweep.space.target_sigma == (0.01, 0.5)


def test_names_that_look_like_dates_and_keys_that_look_like_numbers_stay_text(
    tmp_path: Path,
) -> None:
    text = "name: 2024-01-01\nprotect: {surrogates: {1: '7', no: b}}"
    spec = load_spec(written(tmp_path, text))
    assert spec.name == "2024-01-01"
    assert spec.protect.surrogates == {"1": "7", "no": "b"}


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = "training: &net {width: 8, epochs: 2}\nevaluation: {<<: *net, epochs: 5}\n"
    spec = load_spec(written(tmp_path, text))
    assert (spec.evaluation.width, spec.evaluation.epochs) == (8, 5)


def test_a_run_folder_gives_its_own_experiment(tmp_path: Path) -> None:
    spec = ExperimentSpec(seed=7)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    assert load_spec(tmp_path) == spec


@pytest.mark.parametrize(
    ("overrides", "place", "value"),
    [
        (["seed=1", "seed=2"], "seed", 2),
        (["attacks.ppa.steps=10"], "attacks.0.steps", 10),
        (["attacks.1.steps=11"], "attacks.1.steps", 11),
        (["data.identities=10"], "data.identities", 10),
        (["sweep.space.mislabel_fraction.low=.2"], "sweep.space.mislabel_fraction.high", 0.6),
        (["sweep.space.target_sigma=[.1, .2]"], "sweep.space.target_sigma", [0.1, 0.2]),
        (["protect.surrogates.a=b", "protect.surrogates.c=d"], "protect.surrogates.a", "b"),
        (["tracking.uri="], "tracking.uri", None),
        (["training.learning_rate=1e-3"], "training.learning_rate", 0.001),
        ([f"data={{{FOLDER}, private: [a, b]}}"], "data.private", ["a", "b"]),
        (["data.kind=folder", "data.root=x", "data.private=[a, b]", "data.public=[p]"]
         + ["data.surrogates=[s]"], "data.kind", "folder"),
    ],
)  # fmt: skip
def test_an_override_changes_one_setting(overrides: list[str], place: str, value: Any) -> None:
    found: Any = load_spec(None, overrides).model_dump(mode="json")
    for token in place.split("."):
        found = found[int(token) if isinstance(found, list) else token]
    assert found == value


def test_an_override_leaves_the_rest_of_its_section_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "attacks: [{name: mirror-w, steps: 7}, {name: ppa, pool: 50}]")
    spec = load_spec(path, ["attacks.ppa.steps=3"])
    assert [attack.name for attack in spec.attacks] == ["mirror-w", "ppa"]
    assert spec.attacks[1].model_dump()["pool"] == 50
    assert spec.attacks[1].model_dump()["steps"] == 3


# --- what does not ------------------------------------------------------------------------------

WRONG_FILES = {
    "empty": ("", r"faces.yaml holds no settings; `dcdctl init`"),
    "comments": ("# nothing\n", r"holds no settings"),
    "list": ("- a\n", r"holds a list where an experiment is `key: value` lines"),
    "number": ("3\n", r"holds 3 where"),
    "duplicate": ("seed: 1\nname: a\nseed: 2\n", r"yaml:3: 'seed' is already set in line 1"),
    "tab": ("dcd:\n\ttarget_sigma: 1\n", r"yaml:2: not valid YAML: a tab stands where YAML wants"),
    "bracket": ("name: a\nseed: [1\n", r"yaml:3: not valid YAML: .*expected ',' or '\]'"),
    "indent": ("seed: 0\n name: x\n", r"yaml:2: not valid YAML: mapping values are not allowed"),
    "two documents": ("seed: 1\n---\nseed: 2\n", r"yaml:2: .*expected a single document"),
    "python": ("a: !!python/object:os.x {}\n", r"yaml:1: could not determine a constructor"),
    "key": ("? [a]\n: 1\n", r"yaml:1: a key must be plain text"),
    "control": ("name: a\nseed: \x01\n", r"yaml:2: not valid YAML: special characters"),
    "deep": ("[" * 5000, r"yaml:1: nested too deeply"),
    "latin-1": (b"seed: 1\nname: \xfc\n", r"yaml:2: not UTF-8 text; save the file as UTF-8"),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_is_no_experiment(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        load_spec(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none.yaml does not exist; `dcdctl init"):
        load_spec(tmp_path / "none.yaml")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    written(tmp_path, "seed: 1")
    with pytest.raises(SpecError, match=r"cannot be read: Not a directory"):
        load_spec(tmp_path / "faces.yaml" / "x.yaml")


WRONG_SETTINGS = {
    "unknown": ("sed: 1", r"yaml:1: unknown key 'sed'; did you mean 'seed'\?"),
    "unknown inside": (
        "\ndcd:\n  mislabel_fration: 0.1",
        r"yaml:3: unknown key 'mislabel_fration' in dcd; did you mean 'mislabel_fraction'\?",
    ),
    "unknown in a variant": (
        "attacks:\n- name: ppa\n- name: mirror-w\n  start: 3",
        r"yaml:4: unknown key 'start' in attacks.mirror-w; did you mean 'starts'\?",
    ),
    "unknown, nothing near": ("zebra: 1", r"unknown key 'zebra'; there are 17: name, seed"),
    "range": ("dcd: {target_sigma: 2}", r"dcd.target_sigma is 2 and must be a number from 0 to 1$"),
    "type": ("sweep: {trials: many}", r"sweep.trials is 'many' and must be a whole number at leas"),
    "half": ("seed: 1.5", r"seed is 1.5 and must be a whole number"),
    "empty section": ("sweep:", r"sweep is empty and must be \{trials, search"),
    "choice": (
        "sweep: {search: optna}",
        r"sweep.search is 'optna' and must be optuna, grid, ablation or defenses; did you mean",
    ),
    "union": (
        "dcd: {surrogate_count: mach}",
        r"'mach' and must be match, all or a whole number at least 0; did you mean 'match'\?",
    ),
    "union, other type": ("protect: {targets: x}", r"must be a whole number or a list of names$"),
    "space": (
        "sweep: {space: {target_sigma: 2}}",
        r"target_sigma is 2 and must be \{low, high, log\} or a list of numbers from 0 to 1",
    ),
    "space, in the list": (
        "sweep: {space: {target_sigma: [7]}}",
        r"target_sigma.0 is 7 and must be a number from 0 to 1$",
    ),
    "space, in the range": (
        "sweep: {space: {target_sigma: {low: 0.5, high: 0.2}}}",
        r"yaml:1: sweep.space.target_sigma: low=0.5 is not below high=0.2$",
    ),
    "space, half a range": (
        "sweep: {space: {target_sigma: {low: 0.1}}}",
        r"target_sigma.high \(greatest value to try\) is missing; it must be a number",
    ),
    "kind": ("data: {kind: foldr}", r"data.kind is 'foldr' and must be builtin or folder; did you"),
    "no kind": ("data: {identities: 9}", r"data must be a section with kind: builtin or folder"),
    "no name": ("attacks: [{steps: 9}]", r"attacks.0 must be a section with name: ppa, "),
    "not a section": ("attacks: [5]", r"attacks.0 is 5 and must be a section with name: "),
    "no attack": (
        "attacks: [pap]",
        r"attacks.pap.name is 'pap' and must be .*; did you mean 'ppa'",
    ),
    "no preset": ("attacks: [ppa/celeba]", r"faces.yaml:1: preset 'ppa/celeba' is unknown; did "),
    "alien preset": (
        "attacks: [{name: gmi, preset: gmi/celeba, pool: 3}]",
        r"unknown key 'pool' in attacks.gmi",
    ),
    "no attacks": ("attacks: []", r"attacks is an empty list and must be a list of sections"),
    "mapping": ("attacks: {ppa: {}}", r"attacks is a mapping and must be a list of sections"),
    "missing": (
        "seed: 1\ndata: {kind: folder, root: x, private: [a, b], public: [p]}",
        r"yaml:2: data.surrogates \(classes that may lend their images\) is missing; it must be a",
    ),
    "text": ("name: yes", r"name is true and must be text matching .*; write it in quotes"),
    "quotes": (
        f"data: {{{FOLDER}, private: [a, 0]}}",
        r"data.private.1 is 0 and must be text; write it in quotes$",
    ),
    "contradiction": (
        f"data: {{{FOLDER}, private: [a, p]}}",
        r"yaml:1: data: class 'p' is both private and in public",
    ),
    "contradiction at the top": (
        "training: {architecture: small-vgg}",
        r"faces.yaml: evaluation.architecture and training.architecture are both 'small-vgg'",
    ),
    "two judges alike": (
        "evaluation: {second: {architecture: small-vgg}}",
        r"evaluation.second.architecture and evaluation.architecture are both 'small-vgg'",
    ),
    "twice": ("attacks: [{name: ppa}, {name: ppa}]", r"faces.yaml: attack 'ppa' is listed twice"),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        load_spec(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_several_mistakes_come_a_line_each_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: -1\nsweep: {space: {target_sigma: 2}}\ndcd: {sigma: 1}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(path, ["compute.cpus=0"])
    first, *lines = str(caught.value).splitlines()
    assert first == "4 settings are wrong:"
    starts = ["--set compute.cpus=0: ", f"{path}:1: ", f"{path}:2: ", f"{path}:3: "]
    assert all(line.startswith(f"  {start}") for line, start in zip(lines, starts, strict=True)), (
        lines
    )


WRONG_OVERRIDES = {
    "no value": (["seed"], r"^--set seed: write key=value, such as"),
    "no key": (["=3"], r"^--set =3: write key=value"),
    "not YAML": (["seed=[1"], r"^--set seed=\[1: not valid YAML"),
    "unknown": (["sed=1"], r"^--set sed=1: unknown key 'sed'; did you mean 'seed'"),
    "unknown section": (["foo.bar=1"], r"^--set foo.bar=1: unknown key 'foo'; there are 17"),
    "unknown inside": (
        ["attacks.ppa.stpes=3"],
        r"^--set attacks.ppa.stpes=3: unknown key 'stpes' in attacks.ppa; did you mean 'steps'",
    ),
    "attack": (["attacks.pap.steps=3"], r"attacks has no 'pap'; did you mean 'ppa'\?"),
    "position": (["attacks.7.steps=3"], r"attacks has 3 items, counted from 0"),
    "range": (["seed=1", "dcd.target_sigma=3"], r"^--set dcd.target_sigma=3: dcd.target_sigma is"),
    "below a value": (["seed=1", "seed.x=1"], r"^--set seed.x=1: seed is a value, not a section"),
    "missing": (["data.kind=folder", "data.root=x", "data.private=[a, b]", "data.public=[c]"],
                r"^--set data.kind=folder .* data.surrogates .* is missing"),
    "contradiction": (
        ["training.architecture=small-vgg"],
        r"^--set training.architecture=small-vgg: evaluation.architecture and training",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "sentence"), WRONG_OVERRIDES.values(), ids=WRONG_OVERRIDES)
def test_a_wrong_override_names_the_option(overrides: list[str], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        load_spec(None, overrides)
    assert "\n" not in str(caught.value)


def test_the_last_override_of_a_setting_is_the_one_blamed(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 5")
    with pytest.raises(SpecError, match=r"^--set seed=x: seed is 'x'"):
        load_spec(path, ["seed=1", "seed=x"])


# --- what is written from the spec --------------------------------------------------------------


def test_the_file_of_init_is_the_default_experiment(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    write_template(path)
    assert load_spec(path) == ExperimentSpec()
    assert max(map(len, template("experiment.yaml").splitlines())) <= 100


DEFAULT = {attack.name for attack in ExperimentSpec().attacks}


def test_every_setting_is_in_the_file_of_init() -> None:
    text = template("x.yaml")
    for section in sections():
        if section.path == "attacks" and section.variant.removeprefix("name: ") not in DEFAULT:
            assert section.variant.removeprefix("name: ") in text  # named, to be looked up
            continue
        named = ("training.defense", "serving.defense", "hostile_trainers")
        if section.path in named and section.variant != "name: none":
            assert section.variant.removeprefix("name: ") in text
            continue
        for key in section.properties:
            assert re.search(rf"\b{key}:( |$)", text, re.MULTILINE), (section.path, key)


def test_the_folder_variant_loads_once_its_hash_signs_are_gone(tmp_path: Path) -> None:
    lines = folder_variant()
    assert "".join(f"# {line}\n" for line in lines) in template("x.yaml")
    spec = load_spec(written(tmp_path, "\n".join(lines)))
    assert spec.data.kind == "folder"


def test_init_does_not_overwrite_unless_forced(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 3")
    with pytest.raises(SpecError, match=r"faces.yaml exists; give another name, or .* --force"):
        write_template(path)
    write_template(path, force=True)
    assert load_spec(path) == ExperimentSpec()


def test_init_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot be written: No such file or directory"):
        write_template(tmp_path / "none" / "x.yaml")


def test_the_settings_table_of_the_docs_is_the_specs() -> None:
    text = (DOCS / "configuration.md").read_text()
    assert text.endswith(settings_table()), "run: dcdctl schema --markdown, and put it in the page"


def test_every_setting_says_what_it_means_and_what_it_may_be() -> None:
    for section in sections():
        assert section.description
        for key, node in section.properties.items():
            assert allowed(node)
            assert "const" in node or node.get("description"), (section.path, key)


def test_no_setting_is_no_schema() -> None:
    with pytest.raises(KeyError):
        node_at({}, ("nothing",))


def test_the_outline_says_who_is_protected_and_what_runs() -> None:
    spec = load_spec(None, [f"data={{{FOLDER}, private: [a, b]}}", "protect.targets=[a]"])
    assert outline(spec)["protected"] == "a of 2"
    assert outline(ExperimentSpec())["attacks"] == "ppa, mirror-w, mirror-b"
    assert ExperimentSpec().run_fingerprint in outline(ExperimentSpec())["experiment"]


def test_the_outline_refuses_a_grid_over_ranges() -> None:
    with pytest.raises(SpecError, match=r"sweep.search=grid needs lists"):
        outline(load_spec(None, ["sweep.search=grid"]))


# --- round trip ---------------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from(["no", "on", "007", "1e3", "1.5", "2024-01-01", "null", "~", "a: b", "#x", ""]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8),
)


def values_of(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value that the JSON Schema allows; it does not know of contradictions."""
    if "$ref" in node:
        return values_of(json_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    if options := node.get("oneOf", node.get("anyOf")):
        return st.one_of([values_of(option) for option in options])
    if "const" in node or "enum" in node:
        return st.sampled_from(node.get("enum", [node.get("const")]))
    low, above = node.get("minimum", -(2**31)), node.get("exclusiveMinimum")
    match node["type"]:
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "integer":
            return st.integers(low, node.get("maximum", 2**31 - 1))
        case "number":
            return st.floats(
                low if above is None else above,
                node.get("maximum", node.get("exclusiveMaximum", 1e6)),
                exclude_min=above is not None,
                exclude_max="exclusiveMaximum" in node,
            )
        case "string" if "pattern" in node:
            return st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,9}\Z")
        case "string":
            return NAMES.filter(lambda name: len(name) >= node.get("minLength", 0))
        case "array":
            items = values_of(node["items"])
            return st.lists(items, min_size=node.get("minItems", 0), max_size=3)
    if "properties" not in node:
        return st.dictionaries(NAMES, NAMES, max_size=3)
    parts = {key: values_of(value) for key, value in node["properties"].items()}
    needed = {*node.get("required", ()), *({"kind", "name"} & set(parts))}
    return st.fixed_dictionaries(
        {key: part for key, part in parts.items() if key in needed},
        optional={key: part for key, part in parts.items() if key not in needed},
    )


SECTIONS = sorted(json_schema()["properties"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data(), section=st.sampled_from(SECTIONS))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, section: str
) -> None:
    raw = {section: data.draw(values_of(json_schema()["properties"][section]))}
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    try:
        spec = ExperimentSpec.model_validate(raw)
    except ValidationError:  # a contradiction: still one SpecError, never a crash
        path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
        with pytest.raises(SpecError):
            load_spec(path)
        return
    plain = spec.model_dump(mode="json")
    for text in (yaml.safe_dump(plain, allow_unicode=True), spec.model_dump_json(indent=1)):
        path.write_text(text, encoding="utf-8")
        assert load_spec(path) == spec


def test_settings_that_came_later_leave_the_names_of_older_runs() -> None:
    plain = ExperimentSpec().run_fingerprint
    for same in ("serving.defense=none", "protect.surrogate_held_out=0", "hostile_trainers=[flip]"):
        assert load_spec(None, [same]).run_fingerprint == plain
    for other in ("serving.defense=memguard", "protect.surrogate_held_out=0.2"):
        assert load_spec(None, [other]).run_fingerprint != plain
    rows = '[{"defense": "mid"}]'
    listed = load_spec(None, [f"sweep.rows={rows}"]).run_fingerprint
    assert listed == load_spec(None, [f"sweep.rows={rows[:-2]}, serving: null}}]"]).run_fingerprint
