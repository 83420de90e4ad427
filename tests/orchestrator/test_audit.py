"""Auditing classifiers of other origin: a state, a checkpoint, a factory, an endpoint."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from augment.plan import make_plan
from augment.spec import DcdSpec
from orchestrator.audit_records import AuditOutcome, verdict_of_all, verdict_on
from orchestrator.audit_request import AuditRequest
from orchestrator.commands import audit
from orchestrator.config import load_spec
from orchestrator.records import Rate
from orchestrator.spec import ExperimentSpec
from orchestrator.trial import fit_here
from tasks.checkpoint import Checkpoint
from tasks.datasets.faces import render_faces
from tasks.errors import (
    AccessError,
    DataError,
    DcdctlError,
    EndpointError,
    ExposedError,
    MissingDataError,
    QueryBudgetError,
    SpecError,
    TargetClassError,
    UndecidedError,
)
from tasks.training_spec import TrainingSpec
from tests.augment.test_plan import row_table
from tests.model_server import ModelServer, serving

PEOPLE, IMAGES, SIZE = 6, 20, 32
SEED = 1007  # a development world
QUIET = Console(quiet=True)

pytestmark = pytest.mark.usefixtures("ray")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A classifier of six people, their pictures, and a storage."""

    folder: Path
    pictures: Path
    checkpoint: Path
    state: Path
    trained: Checkpoint


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("audit")
    rows = row_table(PEOPLE, IMAGES, test=0, pool=0)
    who, which = np.repeat(np.arange(PEOPLE), IMAGES), np.tile(np.arange(IMAGES), PEOPLE)
    faces = render_faces(SEED, "private", who, which, SIZE)
    spec = TrainingSpec(width=12, epochs=25, learning_rate=3e-3)
    trained = fit_here(faces, make_plan(rows, [], PEOPLE, DcdSpec(), 0), PEOPLE, spec, SEED)
    trained.save(folder / "model")
    state = {k: v.contiguous() for k, v in trained.module.state_dict().items()}
    save_file(state, folder / "m.safetensors")
    fresh = render_faces(SEED, "private", who, which + IMAGES, SIZE)
    for label, image, face in zip(who, which, fresh, strict=True):
        place = folder / "people" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(place / f"{image}.png")
    return Setting(folder, folder / "people", folder / "model", folder / "m.safetensors", trained)


def spec_in(setting: Setting, *overrides: str) -> ExperimentSpec:
    attacks = (
        "attacks=[{name: ppa, pool: 400, candidates: 6, steps: 25, keep: 4, selection_rounds: 4},"
        "{name: mirror-b, pool: 200, restarts: 2, population: 8, generations: 3}]"
    )
    storage = f"storage={json.dumps(str(setting.folder / 'storage'))}"
    quick = ("evaluation.epochs=12", "evaluation.second.enabled=false", "tracking.enabled=false")
    return load_spec(None, [storage, f"seed={SEED}", *quick, attacks, *overrides])


def run(setting: Setting, asked: AuditRequest, *overrides: str) -> AuditOutcome:
    spec = spec_in(setting, *overrides)
    return audit(spec, asked, QUIET, spec.attacks)


def state_request(setting: Setting, **changes: object) -> AuditRequest:
    asked = AuditRequest(
        model=str(setting.state),
        architecture="small-resnet",
        images=setting.pictures,
        classes="0,3",
        seeds=1,
    )
    return dataclasses.replace(asked, **changes)  # type: ignore[arg-type]


# --- the sources --------------------------------------------------------------------------------


def test_people_of_an_unprotected_state_are_exposed_with_intervals(
    setting: Setting, tmp_path: Path
) -> None:
    out = tmp_path / "result"
    found = run(setting, state_request(setting, seeds=2, keep_reconstructions=True, out=out))
    assert found.model.kind == "state"
    assert found.model.name.startswith("sha256:")
    assert (found.model.access, found.model.num_classes) == ("white-box", PEOPLE)
    assert found.model.on_real_images is not None
    assert found.model.on_real_images.value > 0.8
    assert found.judge is not None
    assert found.judge.kind == "trained"
    assert found.judge.architecture != "small-resnet"
    assert [len(one.attacks) for one in found.identities] == [2, 2]
    hits = found.identities[0].attacks[0].hits
    assert hits is not None
    assert hits.n == 2 * 4  # two seeds, four kept
    assert hits.low < hits.value <= hits.high or hits.value == hits.high == 1
    assert found.verdict == "exposed"
    with pytest.raises(ExposedError, match=r"of 2 identities are exposed: an attack .* 10%") as e:
        found.require_pass()
    assert e.value.exit_code == 10

    assert AuditOutcome.model_validate_json((out / "audit.json").read_bytes()) == found
    who = json.loads((out / "private" / "identities.json").read_text())
    assert {one.pseudonym for one in found.identities} == set(who)
    assert sorted(entry["class"] for entry in who.values()) == [0, 3]
    assert stat.S_IMODE((out / "private" / "identities.json").stat().st_mode) == 0o600
    with np.load(out / "reconstructions.npz") as arrays:
        assert arrays["ppa"].shape == (2, 8, SIZE, SIZE, 3)


def test_the_same_audit_of_a_checkpoint_finds_the_same(setting: Setting) -> None:
    of_state = run(setting, state_request(setting))
    asked = state_request(setting, model=str(setting.checkpoint), architecture=None)
    of_checkpoint = run(setting, asked)
    assert of_checkpoint.model.kind == "checkpoint"
    assert of_checkpoint.identities == of_state.identities


def write_factory(setting: Setting) -> str:
    path = setting.folder / "their_model.py"
    path.write_text(
        "from safetensors.torch import load_file\n"
        "from tasks.classifiers import SmallResNet\n"
        "def make():\n"
        f"    model = SmallResNet({PEOPLE}, 12)\n"
        f"    model.load_state_dict(load_file({str(setting.state)!r}))\n"
        "    return model\n"
    )
    return f"{path}:make"


def test_a_factory_runs_only_when_it_is_trusted(setting: Setting) -> None:
    asked = state_request(setting, model=write_factory(setting), architecture=None)
    with pytest.raises(SpecError, match=r"is code, and running it .* pass --trust-code"):
        run(setting, asked)
    trusted = dataclasses.replace(asked, trust_code=True, normalisation="half")
    found = run(setting, trusted)
    assert found.model.kind == "factory"
    assert found.model.name == "their_model.py:make"
    assert found.identities == run(setting, state_request(setting)).identities


def endpoint(setting: Setting) -> ModelServer:
    return ModelServer(setting.trained.classifier().scores)


def test_an_endpoint_is_attacked_by_scores_alone(setting: Setting) -> None:
    with serving(endpoint(setting)) as server:
        asked = state_request(setting, model=server.url, architecture=None)
        spec = spec_in(setting)
        found = audit(spec, asked, QUIET, spec.attacks)
        assert found.model.kind == "endpoint"
        assert [one.name for one in found.attacks] == ["mirror-b"]  # ppa needs gradients
        assert found.attacks[0].access == "scores"
        assert found.queries == server.queries
        assert found.stopped is None
        hits = found.identities[0].attacks[0].hits
        assert hits is not None
        assert hits.n == 2


def test_a_query_budget_is_never_exceeded_and_what_was_found_is_kept(
    setting: Setting, tmp_path: Path
) -> None:
    with serving(endpoint(setting)) as server:
        asked = state_request(
            setting, model=server.url, architecture=None, query_budget=260, out=tmp_path
        )
        found = run(setting, asked)
        assert server.queries <= 260
        assert found.queries == server.queries
    assert found.stopped_by == "budget"
    assert not found.attacks[0].complete
    assert (tmp_path / "audit.json").is_file()
    if found.verdict != "exposed":
        with pytest.raises(QueryBudgetError, match="the audit is incomplete: ") as e:
            found.require_pass()
        assert e.value.exit_code == 12
    assert any("may end early" in note for note in found.notes)


def test_a_rate_limit_is_kept(setting: Setting) -> None:
    import time

    with serving(endpoint(setting)) as server:
        asked = state_request(
            setting,
            model=server.url,
            architecture=None,
            query_budget=240,
            rate_limit=200.0,
        )
        started = time.monotonic()
        found = run(setting, asked)
        assert time.monotonic() - started > (found.queries - 64) / 200


def test_an_endpoint_that_dies_is_one_sentence(setting: Setting) -> None:
    with serving(endpoint(setting)) as server:
        url = server.url
    asked = state_request(setting, model=url, architecture=None, deadline_s=0.5)
    with pytest.raises(EndpointError):
        run(setting, asked)


# --- verdicts -----------------------------------------------------------------------------------


def test_without_pictures_or_a_judge_nobody_is_judged(setting: Setting) -> None:
    found = run(setting, state_request(setting, images=None))
    assert found.judge is None
    assert found.verdict == "not judged"
    assert all(a.hits is None and a.confidence for one in found.identities for a in one.attacks)
    with pytest.raises(UndecidedError, match="only the attacked model's own confidence") as e:
        found.require_pass()
    assert e.value.exit_code == 11


def test_a_model_may_not_judge_itself(setting: Setting) -> None:
    with pytest.raises(DataError, match="a model cannot judge itself"):
        run(setting, state_request(setting, judge=setting.checkpoint))


def test_a_model_that_knows_nobody_clears_nobody(setting: Setting, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {k: v.contiguous() for k, v in setting.trained.module.state_dict().items()}
    noise = {
        k: (torch.randn_like(v) * 0.05).abs() for k, v in state.items() if v.is_floating_point()
    }
    save_file(state | noise, tmp_path / "m.safetensors")
    found = run(setting, state_request(setting, model=str(tmp_path / "m.safetensors")))
    assert found.verdict in ("undecided", "exposed")
    assert any("the audited model names" in note for note in found.notes)


@pytest.mark.parametrize(
    ("hits", "complete", "known", "verdict"),
    [
        ([(40, 40)], True, [], "exposed"),
        ([(0, 40), (6, 40)], True, [], "undecided"),
        ([(0, 40), (20, 40)], False, [], "exposed"),
        ([(0, 40)], True, [(10, 10)], "not shown to be exposed"),
        ([(0, 40)], True, [(2, 10)], "undecided"),
        ([(0, 40)], False, [], "undecided"),
        ([(0, 8)], True, [], "undecided"),  # eight tries say too little
        ([None], True, [], "not judged"),
    ],
)
def test_a_verdict_goes_by_the_intervals(
    hits: list[tuple[int, int] | None],
    complete: bool,
    known: list[tuple[int, int]],
    verdict: str,
) -> None:
    rates = [None if pair is None else Rate.of(*pair) for pair in hits]
    said = verdict_on(rates, 0.1, complete=complete, known=[Rate.of(*pair) for pair in known])
    assert said == verdict


def test_one_exposed_person_is_enough() -> None:
    assert verdict_of_all(["not shown to be exposed", "exposed", "undecided"]) == "exposed"
    assert verdict_of_all(["not shown to be exposed"]) == "not shown to be exposed"


# --- bad input ----------------------------------------------------------------------------------

Change = Callable[[Setting, Path], dict[str, object]]

BAD: dict[str, tuple[Change, type[DcdctlError], str]] = {
    "no such file": (
        lambda s, tmp: {"model": str(tmp / "none.safetensors")},
        MissingDataError,
        "none.safetensors does not exist; name a .safetensors file",
    ),
    "no architecture": (
        lambda s, tmp: {"architecture": None},
        SpecError,
        "holds weights and not their network; name it with --architecture",
    ),
    "another architecture": (
        lambda s, tmp: {"architecture": "small-vgg"},
        DataError,
        "is no state of small-vgg",
    ),
    "a class too many": (
        lambda s, tmp: {"classes": "0,6"},
        TargetClassError,
        "6 is out of range; the model has 6 classes, 0 to 5",
    ),
    "a class twice": (
        lambda s, tmp: {"classes": "0,0"},
        TargetClassError,
        "names class 0 twice",
    ),
    "nobody's name": (
        lambda s, tmp: {"classes": "ann"},
        SpecError,
        "'ann' is no class; name classes through --labels FILE",
    ),
    "no pictures": (
        lambda s, tmp: {"images": tmp / "none"},
        MissingDataError,
        "none is no folder",
    ),
    "an attack's name": (
        lambda s, tmp: {"attacks": ("pap",)},
        SpecError,
        "--attack 'pap' is unknown; did you mean 'ppa'",
    ),
    "a budget without an endpoint": (
        lambda s, tmp: {"query_budget": 10},
        SpecError,
        "--query-budget is for an endpoint",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_sentence(name: str, setting: Setting, tmp_path: Path) -> None:
    change, kind, sentence = BAD[name]
    with pytest.raises(kind, match=sentence) as error:
        run(setting, state_request(setting, **change(setting, tmp_path)))
    assert "\n" not in str(error.value)


def test_a_budget_below_the_first_step_asks_nothing(setting: Setting) -> None:
    with serving(endpoint(setting)) as server:
        asked = state_request(setting, model=server.url, architecture=None, query_budget=20)
        with pytest.raises(SpecError, match="too small for one step: mirror-b begins with 201"):
            run(setting, asked)
        assert server.requests == 0


def test_an_attack_with_gradients_cannot_be_asked_of_an_endpoint(setting: Setting) -> None:
    with serving(endpoint(setting)) as server:
        asked = state_request(setting, model=server.url, architecture=None, attacks=("ppa",))
        with pytest.raises(SpecError, match="ppa needs gradients or features"):
            run(setting, asked)


def test_an_endpoint_grants_no_logits(setting: Setting) -> None:
    from tasks.http_classifier import Endpoint, HttpClassifier

    with serving(endpoint(setting)) as server:
        found = HttpClassifier(Endpoint(server.url, SIZE))
        with pytest.raises(AccessError):
            found.logits(torch.rand(1, 3, SIZE, SIZE))
