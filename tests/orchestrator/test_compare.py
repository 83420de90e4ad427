"""Table 1: run from one command, read again from finished runs, and honest about noise."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from augment.spec import PRESETS
from orchestrator.cli import app
from orchestrator.compare import CompareOutcome, compare_runs, comparing, run_comparison
from orchestrator.comparison import FinishedRun, compare
from orchestrator.comparison_plot import styles_of
from orchestrator.comparison_spec import ComparedSpec, compared_points, default_rows
from orchestrator.comparison_table import markdown
from orchestrator.config import load_spec
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec
from orchestrator.store import records_of
from tasks.defenses.spec import DpSgdSpec, MidSpec, RolssSpec
from tasks.errors import SpecError, StoreError
from tasks.training_spec import TrainingSpec
from tests.orchestrator.fake_run import fake_records, write_fake_run

QUIET = Console(quiet=True)
EXAMPLES = Path(__file__).parents[2] / "examples"
ROWS = [
    {"defense": {"name": "mid", "size": 16}, "strengths": [0.1, 0.2]},
    {"defense": {"name": "dp-sgd", "noise_multiplier": 0.5, "delta": 0.001}},
    {"dcd": True, "defense": "neg-ls", "strengths": []},
    {"dcd": True},
    {"serving": "memguard"},
]


def spec_in(storage: Path) -> ExperimentSpec:
    settings = ["tracking.enabled=false", "attacks=[ppa, mirror-b]"]
    settings.append(f"storage={json.dumps(str(storage))}")
    return smoke(load_spec(None, [*settings, f"sweep.rows={json.dumps(ROWS)}"]))


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, ray: None
) -> tuple[ExperimentSpec, CompareOutcome]:
    spec = spec_in(tmp_path_factory.mktemp("compare"))
    return spec, run_comparison([spec], [1000], QUIET)


Compared = tuple[ExperimentSpec, CompareOutcome]


def test_every_row_is_trained_attacked_and_in_the_table(compared: Compared) -> None:
    found = compared[1].comparison
    assert [row.title for row in found.rows] == [
        "none",
        "mid beta=0.1",  # a smoke test tries one point of a curve
        "dp-sgd",
        "dcd+neg-ls",
        "dcd",
        "memguard",
    ]
    assert all(row.chosen and row.runs == 1 and row.failed == 0 for row in found.rows)
    assert [row.inflation for row in found.rows] == [1, 1, 1, 4, 4, 1]
    guarantees = {row.title: row.guarantee for row in found.rows}
    assert guarantees["dp-sgd"].startswith("epsilon ")
    assert {guarantees[title] for title in ("none", "mid beta=0.1", "dcd", "memguard")} == {"none"}
    page = Path(compared[1].table).read_text()
    assert "| defence | builtin-faces-smoke, ppa: ACC | Att.ACC |" in page
    assert page == markdown(found)
    served = next(line for line in page.splitlines() if line.startswith("| memguard |"))
    assert served.count("(raw network)") == 1  # ppa's; mirror-b asks for scores
    assert "they do not protect against it" in page


def test_the_curves_are_drawn_beside_the_table(compared: Compared) -> None:
    folder = Path(compared[1].table).parent
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    drawn = (folder / "curves.svg").read_text()
    for row in {row.row for row in compared[1].comparison.rows}:
        assert f">{row}<" in drawn
    assert {"mid": 0.1, "none": None}.items() <= {
        row.row: row.strength for row in compared[1].comparison.rows
    }.items()


def test_no_two_rows_look_alike() -> None:
    names = list(dict.fromkeys(point.row for point in compared_points(ExperimentSpec())))
    assert len(set(styles_of(names).values())) == len(names) == 18


def test_side_effects_are_measured_for_every_defence(compared: Compared) -> None:
    rows = {row.title: row for row in compared[1].comparison.rows}
    for row in rows.values():
        assert row.membership_auc is not None
        assert row.surrogate_accepts is not None
        assert row.surrogate_accepts.n == 2 * 12  # all images of both surrogates
        assert row.held_out_accepts is not None
        assert row.held_out_accepts.n == 2 * 4  # shots of both that are in no pool
        assert row.targets is not None
        assert row.bystanders is not None
        assert row.targets.n + row.bystanders.n == 8 * 4
    assert rows["none"].receivers is None  # nobody gets wrong labels
    assert rows["dcd"].receivers is not None


def test_the_record_says_which_defence_it_was(compared: Compared) -> None:
    runs = [*(Path(compared[0].storage) / "runs").iterdir()]
    records = records_of(runs[0])
    assert [record.training_defense["name"] for record in records] == [
        "none",
        "mid",
        "dp-sgd",
        "neg-ls",
        "none",
        "none",
    ]
    assert [record.defense for record in records] == [*("none",) * 3, *("dcd",) * 2, "none"]
    assert [record.serving["name"] for record in records] == [*("none",) * 5, "memguard"]
    assert records[2].guarantee is not None
    assert "mid beta=0.1" in (runs[0] / "report.html").read_text()


def test_finished_runs_are_read_and_not_run_again(compared: Compared, tmp_path: Path) -> None:
    spec, outcome = compared
    runs = [str(path) for path in (Path(spec.storage) / "runs").iterdir()]
    found = CliRunner().invoke(app, ["compare", *runs, "--storage", str(tmp_path), "--json"])
    assert found.exit_code == 0, found.output
    again = CompareOutcome.model_validate_json(found.stdout)
    assert again.comparison == outcome.comparison
    assert run_comparison([spec], [1000], QUIET).comparison == outcome.comparison


def test_a_row_is_a_curve_and_the_control_comes_first() -> None:
    spec = ExperimentSpec()
    points = compared_points(spec)
    titles = [point.title for point in points]
    assert titles[:3] == ["none", "dp-sgd without noise", "dp-sgd epsilon=8"]
    assert len(titles) == len(set(titles))
    assert {p.title for p in points if p.dcd} == {
        "dcd",
        "dcd by one person",
        "dcd+random-erasing",
        "dcd+neg-ls",
        "dcd+label-smoothing",
    }
    dp = [point.training.defense for point in points if point.row == "dp-sgd"]
    assert [getattr(one, "epsilon", None) for one in dp] == list(DpSgdSpec.curve)
    assert {point.training.passes for point in points if "dp-sgd" in point.row} == {40}
    assert {point.training.passes for point in points if "dp-sgd" not in point.row} == {20}
    rolss = RolssSpec()
    assert all(row.defense != rolss for row in default_rows(TrainingSpec(architecture="small-vgg")))
    assert {"transfer frozen=1", "memguard", "purification"} < set(titles)


def test_every_point_of_a_curve_is_tried_by_default() -> None:
    points = compared_points(ExperimentSpec())
    for row in default_rows(TrainingSpec()):
        curve = row.defense.curve if row.strengths is None else row.strengths
        found = [point.training.defense for point in points if point.row == row.name]
        if curve and not row.dcd and "without noise" not in row.name:
            assert [getattr(one, row.defense.knob) for one in found] == list(curve)
            assert len({type(one) for one in found}) == 1
    coco = [point.training.defense for point in points if point.row == "bido with coco"]
    assert {getattr(one, "measure", None) for one in coco} == {"coco"}


def test_a_network_cannot_learn_public_people_whom_nobody_names() -> None:
    folder = {"kind": "folder", "root": "faces", "private": ["a", "b"], "surrogates": ["c"]}
    named = ExperimentSpec.model_validate({"data": folder | {"public": ["d", "e"]}})
    pool = {"public": [], "public_from": {"root": "ffhq", "layout": "ffhq"}}
    nameless = ExperimentSpec.model_validate({"data": folder | pool})
    for spec, there in ((named, True), (nameless, False)):
        rows = {point.row for point in compared_points(spec)}
        assert ("transfer" in rows) is there


def test_a_row_may_change_the_recipe() -> None:
    rows = [{"title": "weak", "dcd": {"preset": "twofold", "mislabel_fraction": 0.1}}]
    settings = [f"sweep.rows={json.dumps(rows)}", "dcd.surrogate_sigma=0.01"]
    _, weak = compared_points(load_spec(None, settings))
    assert weak.dcd is not None
    assert weak.dcd.target_copies == PRESETS["twofold"]["target_copies"]
    assert weak.dcd.mislabel_fraction == 0.1
    assert weak.dcd.surrogate_sigma == 0.01  # of the experiment, which the preset leaves alone
    spec = load_spec(None, settings)
    stored = ExperimentSpec.model_validate_json(spec.model_dump_json())
    assert compared_points(stored) == compared_points(spec)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("{mislabel_fraktion: 1}", "'mislabel_fraktion'.*did you mean 'mislabel_fraction'"),
        ("{steps: [injektion]}", "'injektion' and must be .*did you mean 'injection'"),
        ("{mislabel_fraction: 2}", "dcd.mislabel_fraction is 2 and must be a number"),
        ("maybe", "dcd is 'maybe' and must be true or false"),
    ],
)
def test_a_wrong_recipe_of_a_row_is_a_sentence(recipe: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_spec(None, [f"sweep.rows=[{{dcd: {recipe}}}]"])


def test_a_defence_that_does_not_fit_the_network_is_refused_before_anything_runs() -> None:
    rows = (ComparedSpec(defense=RolssSpec(stages=7)),)
    spec = ExperimentSpec()
    sweep = spec.sweep.model_copy(update={"rows": rows})
    with pytest.raises(SpecError, match="rolss takes the skip connections out of 7 stages"):
        comparing(spec.model_copy(update={"sweep": sweep}), 0)


def test_a_defence_of_the_experiment_itself_is_refused_since_no_row_would_have_it() -> None:
    spec = load_spec(None, ["training.defense.name=bido"])
    with pytest.raises(SpecError, match="training.defense: bido would not be used.*sweep.rows"):
        comparing(spec, 0)


def with_rows(
    spec: ExperimentSpec, rows: tuple[ComparedSpec, ...], strengths: int
) -> ExperimentSpec:
    sweep = spec.sweep.model_copy(update={"rows": rows, "strengths": strengths})
    return spec.model_copy(update={"sweep": sweep})


def test_a_strength_that_is_given_is_no_curve() -> None:
    spec = ExperimentSpec()
    rows = (ComparedSpec(defense=MidSpec(beta=0.5)), ComparedSpec(defense=MidSpec()))
    points = compared_points(with_rows(spec, rows, 2))
    titles = [point.title for point in points]
    assert titles == ["none", "mid", "mid beta=0.003", "mid beta=0.03"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid_and_their_networks_fit(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name in path.stem or path.stem.startswith(spec.name.removeprefix("small-"))
    if spec.data.image_size <= 32:
        comparing(spec, 0)
    assert "The paper (percent" in path.read_text() or path.parent.name == "small"


def run_of(storage: Path, seed: int = 0) -> Path:
    spec = ExperimentSpec(storage=str(storage), seed=seed)
    return write_fake_run(storage, spec=spec, pictures=False)


def test_sweeps_are_compared_person_by_person(tmp_path: Path) -> None:
    folders = [run_of(tmp_path, seed) for seed in (0, 1)]
    outcome = compare_runs(folders, tmp_path / "out")
    rows = {row.title: row for row in outcome.comparison.rows}
    assert rows["none"].runs == 2
    assert rows["none"].cells[0].attack_accuracy.clusters == 16  # eight people of each seed
    assert outcome.comparison.reference.startswith("dcd ")
    ppa = next(d for d in outcome.comparison.differences if (d.title, d.attack) == ("none", "ppa"))
    assert ppa.attack_accuracy.value == pytest.approx(rows["none"].cells[0].attack_accuracy.value
        - rows[outcome.comparison.reference].cells[0].attack_accuracy.value, abs=1e-5)  # fmt: skip
    assert not ppa.within_noise
    failed = fake_records()[4]
    assert failed.status == "failed"
    assert not any("0.48" in title for title in rows)


def test_the_order_of_the_words_changes_nothing(tmp_path: Path) -> None:
    """On the records that docs/results.md is made of."""
    kept = Path(__file__).parents[2] / "benchmarks"
    for seed in (0, 1):
        with tarfile.open(kept / f"records-builtin-faces-{seed}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
    folders = sorted((tmp_path / "runs").iterdir())
    found = [compare_runs(some, tmp_path / "out") for some in (folders, folders[::-1])]
    assert found[0].comparison == found[1].comparison
    assert found[0].comparison.rows[0].cells[0].attack_accuracy.clusters == 16


def test_a_difference_of_nothing_is_within_noise_and_has_no_interval() -> None:
    spec = ExperimentSpec()
    records = fake_records()[:2]
    twin = records[1].model_copy(update={"title": "twin", "trial_id": "twin", "index": 2})
    found = compare([FinishedRun("a", spec, [*records, twin])])
    for difference in found.differences:
        if difference.title == "twin":
            assert difference.attack_accuracy.value == 0
            assert difference.attack_accuracy.low is None
            assert difference.within_noise


def test_a_trial_of_two_runs_is_counted_once() -> None:
    spec, records = ExperimentSpec(), fake_records()
    first, rest = records[:2], [records[0], *records[2:4]]
    together = compare([FinishedRun("a", spec, first), FinishedRun("b", spec, rest)])
    alone = compare([FinishedRun("a", spec, records[:4])])
    assert together.rows == alone.rows
    assert together.differences == alone.differences


def test_runs_that_do_not_fit_into_one_table_are_refused(tmp_path: Path) -> None:
    records = fake_records()[:2]
    one = FinishedRun("a", ExperimentSpec(), records)
    two = FinishedRun("b", ExperimentSpec.model_validate({"attacks": [{"name": "gmi"}]}), records)
    with pytest.raises(SpecError, match="runs a and b are both of .* differ in attacks"):
        compare([one, two])
    folder = write_fake_run(tmp_path, fake_records()[1:2], pictures=False)
    with pytest.raises(StoreError, match="has no finished control"):
        compare_runs([folder], tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--seeds", "0;1"], "is no list of numbers"),
        (["compare", "RUN", "--seeds", "0"], "finished runs are only read"),
        (["compare", "RUN", "other.yaml"], "not both"),
    ],
)
def test_words_that_contradict_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    found = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, [str(run) if word == "RUN" else word for word in words]
    )
    assert found.exit_code == 2
    assert message in found.output


def test_strengths_are_checked_like_any_setting() -> None:
    spec = ExperimentSpec()
    rows = (ComparedSpec(defense=MidSpec(), strengths=(-1.0,)),)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        compared_points(with_rows(spec, rows, 4))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("[{title: none}, {dcd: true}]", "row 'none' is the same trial as the control"),
        ("[{title: nothing}, {dcd: true}]", "row 'nothing' is the same trial as the control"),
        ("[{dcd: true}, {title: again, dcd: true}]", "'again' is the same trial as the row 'dcd'"),
    ],
)
def test_two_names_for_one_trial_are_refused(rows: str, said: str) -> None:
    """One record would overwrite the other: the table was never written."""
    spec = load_spec(None, [f"sweep.rows={rows}"])
    with pytest.raises(SpecError, match=said):
        comparing(spec, 0)
    points = compared_points(spec)
    assert [point.title for point in points] == ["none", "dcd"]
