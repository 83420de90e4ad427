"""The report: complete, self-contained, honest about what is missing, and safe to open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from orchestrator.palette import DARK, LIGHT
from orchestrator.reconstructions import watermark
from orchestrator.records import PersonScore, Rate, TrialRecord
from orchestrator.report import write_report
from orchestrator.report_data import ReportData, schema_text
from orchestrator.report_format import percent, seconds
from orchestrator.sensitivity import effects
from orchestrator.spec import ExperimentSpec
from tasks.datasets.spec import FolderData
from tasks.errors import StoreError
from tests.orchestrator.fake_run import fake_record, fake_records, pseudonym, write_fake_run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: its text, elements, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        assert self.open == []

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_fake_run(tmp_path_factory.mktemp("storage"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(run / "report.html")


def shown(share: float) -> str:
    return percent(share).replace("\u202f", " ")


def folder_spec(storage: Path) -> ExperimentSpec:
    return ExperimentSpec(
        storage=str(storage),
        data=FolderData(
            kind="folder",
            root=Path("/home/ann/photos"),
            private=("Ann Smith", "Bob Jones"),
            surrogates=("Cy Young",),
            public=("Di Hill", "Ed Lake"),
        ),
    )


def test_the_verdict_stands_first_and_counts_tries(page: Page) -> None:
    assert page.text.index("recovers the target in 1 of 64 tries") < page.text.index("Frontier")
    assert "(without defence: 55 of 64)" in page.text
    assert "97.8 % (without defence: 99.8 %)" in page.text


def test_every_trial_and_number_is_on_the_page(page: Page) -> None:
    rows = {a["id"]: a["class"] for a in page.all("tr") if "id" in a}
    assert rows["row-0"] == "control"
    assert rows["row-4"] == "failed"
    assert rows["row-5"] == "recommended"
    assert rows["row-6"] == "dominated"
    for record in fake_records():
        for attack in record.attacks:
            assert f"{attack.accuracy_at_1.successes}/{attack.accuracy_at_1.n}" in page.text
            assert shown(attack.accuracy_at_1.value) in page.text
            assert shown(attack.accuracy_at_5.value) in page.text
            assert shown(attack.surrogate_rate.value) in page.text
        for value in record.settings.values():
            assert str(value) in page.text
    assert "the loss of training is not finite in epoch 3" in page.text
    assert all(pseudonym(i) in page.text for i in range(8))


def test_the_command_to_apply_the_recommendation_is_exact(run: Path, page: Page) -> None:
    command = ReportData.model_validate_json((run / "report.json").read_bytes()).command
    assert command == (
        f"dcdctl augment {run} --set dcd.mislabel_fraction=0.41 "
        "--set dcd.curvature_mislabel_fraction=0.88 --set dcd.target_sigma=0.047 "
        "--set dcd.surrogate_sigma=0.0012 --out protected"
    )
    assert command in page.text.replace(" \\ ", " ")


def test_the_page_refers_to_nothing_outside_itself(page: Page) -> None:
    assert "http:" not in page.source
    assert "https:" not in page.source
    assert [a.get("type") for a in page.all("script")] == ["text/plain", None]
    assert "script-src 'sha256-" in page.source
    assert not re.search(r"fetch|XMLHttp|import\(|WebSocket|innerHTML", page.source)
    assert not page.all("link")
    assert not re.search(r"@import|url\((?!#)", page.source)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for _, attributes in page.elements:
        for name in ("href", "xlink:href", "src"):
            target = attributes.get(name) or "data:"
            assert target.startswith("data:image/png") or target[1:] in ids or target == "data:"


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_pictures_have_words_and_tables_have_headers(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 8 * (2 + 3 * 2)
    assert all(picture["alt"] for picture in pictures)
    assert any("PPA, no defence, judged target" in (p["alt"] or "") for p in pictures)
    assert all("scope" in header for header in page.all("th"))
    figure = page.all("svg")[0]
    assert "trial 5: clean accuracy" in (figure["aria-label"] or "")


def test_the_plot_follows_the_colour_scheme_of_the_page(page: Page) -> None:
    svg = page.source[page.source.index("<svg") : page.source.index("</svg>")]
    assert "var(--accent)" in svg
    assert not any(colour in svg for colour in LIGHT.values())
    assert "prefers-color-scheme: dark" in page.source


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_contrast(palette: dict[str, str]) -> None:
    """WCAG 2 level AA: 4.5 between text and ground."""
    for text in ("ink", "muted", "accent", "control", "alarm"):
        for ground in ("paper", "card", "soft", "goal"):
            light, dark = sorted(map(_luminance, (palette[text], palette[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_limits_are_stated(page: Page) -> None:
    for words in (
        "the real uncertainty is wider",
        "one training run",
        "chosen by the same scores",
        "does not stop recognition",
        "own clean accuracy is 99.5",
    ):
        assert words in page.text


def test_the_numbers_are_beside_the_page_as_data(run: Path) -> None:
    summary = ReportData.model_validate_json((run / "report.json").read_bytes())
    assert summary.version == 2
    assert summary.fingerprint == run.name
    assert [trial.index for trial in summary.trials] == list(range(7))
    assert summary.front == tuple(fake_record(i).trial_id for i in (0, 1, 2, 3, 5))
    assert summary.knee == fake_record(2).trial_id
    assert summary.recommended == fake_record(5).trial_id
    assert [t.index for t in summary.trials if t.meets_goals] == [2, 3, 5]


def test_the_picture_beside_the_page_opens(run: Path) -> None:
    with Image.open(run / "report.png") as picture:
        assert picture.width == round(9.2 * 160)
        assert picture.height > picture.width


def test_writing_it_again_changes_nothing(run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("report.html", "report.json")}
    write_report(run)
    assert before == {name: (run / name).read_bytes() for name in before}


HOSTILE = '<script>alert("x")</script>&'


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    def poison(record: TrialRecord) -> TrialRecord:
        text = record.model_dump_json().replace(pseudonym(0), json.dumps(HOSTILE)[1:-1])
        content = json.loads(text)
        content |= {"versions": {HOSTILE: HOSTILE}, "error": HOSTILE}
        content["settings"] = content["settings"] and content["settings"] | {HOSTILE: HOSTILE}
        for attack in content["attacks"]:
            attack["name"] += HOSTILE
        return TrialRecord.model_validate(content)

    run = write_fake_run(tmp_path, [poison(r) for r in fake_records()])
    page = Page(write_report(run))
    assert page.source.count("<script") == 2
    assert page.text.count(HOSTILE) > 10


def only(*indices: int) -> Callable[[], list[TrialRecord]]:
    return lambda: [fake_record(i) for i in indices]


def failed(count: int) -> list[TrialRecord]:
    broken = fake_record(4).model_copy(update={"defense": "none", "index": 0, "trial_id": "00"})
    return [broken, *(fake_record(4) for _ in range(count))]


@pytest.mark.parametrize(
    ("records", "verdict", "advice"),
    [
        (only(), "no verdict", "control has no result"),
        (only(0), "no trial with a defence has finished", "No trial with a defence"),
        (only(4), "no verdict", "control has no result"),
        (lambda: failed(1), "no verdict", "control has no result"),
        (only(0, 4), "no trial with a defence has finished", "No trial with a defence"),
        (only(0, 3), "With the recommended setting", "Trial 3 is the only one"),
        (only(3), "no verdict", "control has no result"),
        (only(0, 6), "No setting met both goals; with the nearest", "Trial 6 comes nearest"),
    ],
    ids=["nothing", "control", "failed", "all failed", "one failed", "one", "no control", "none"],
)
def test_an_incomplete_run_has_a_report_too(
    tmp_path: Path, records: Callable[[], list[TrialRecord]], verdict: str, advice: str
) -> None:
    page = Page(write_report(write_fake_run(tmp_path, records())))
    assert verdict in page.text
    assert advice in page.text


def test_missing_or_damaged_pictures_cost_the_grid_and_nothing_else(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    for path in run.glob("trials/*/reconstructions.npz"):
        path.write_bytes(path.read_bytes()[:1000])
    page = Page(write_report(run))
    assert not page.all("img")
    assert "no pictures that can be read" in page.text
    (run / "examples.npz").unlink()
    assert "no pictures that can be read" in Page(write_report(run)).text


def test_an_attack_that_fails_without_defence_is_called_out(tmp_path: Path) -> None:
    control = fake_record(0)
    attacks = (control.attacks[0], fake_record(5).attacks[1], control.attacks[2])
    records = [control.model_copy(update={"attacks": attacks}), fake_record(5)]
    page = Page(write_report(write_fake_run(tmp_path, records)))
    assert "MIRROR, white box meets the goal already without a defence" in page.text


def test_real_people_are_shown_on_request_only(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, spec=folder_spec(tmp_path))
    page = Page(write_report(run))
    assert not page.all("img")
    assert "--show-people" in page.text
    assert not json.loads((run / "report.json").read_text())["people_shown"]
    page = Page(write_report(run, show_people=True))
    assert len(page.all("img")) == 64
    assert "pictures of real people" in page.text
    assert json.loads((run / "report.json").read_text())["people_shown"]


def test_names_and_paths_of_a_folder_stay_out_of_the_report(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, spec=folder_spec(tmp_path))
    write_report(run, show_people=True)
    for name in ("report.html", "report.json"):
        text = (run / name).read_text()
        for secret in ("Ann Smith", "Cy Young", "Di Hill", "/home/ann"):
            assert secret not in text
    assert "2 classes private" in Page(run / "report.html").text


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: (run / "spec.json").unlink(), "holds no run: there is no spec.json"),
        (lambda run: (run / "spec.json").write_text("{"), "spec.json cannot be read"),
        (lambda run: (run / "evaluation.json").write_text("{}"), "evaluation.json cannot be read"),
        (
            lambda run: next(run.glob("trials/*/record.json")).write_text("{}"),
            "record.json cannot be read",
        ),
    ],
)
def test_a_damaged_run_is_named(
    tmp_path: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    run = write_fake_run(tmp_path, [fake_record(0)], pictures=False)
    damage(run)
    with pytest.raises(StoreError, match=sentence):
        write_report(run)


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "0.2 s"), (42.4, "42 s"), (150, "2.5 min"), (9000, "2.5 h")]
)
def test_durations_read_well(value: float, text: str) -> None:
    assert seconds(value).replace("\u202f", " ") == text


def test_every_figure_is_a_file_too(run: Path) -> None:
    names = {"frontier", "hypervolume", "settings", "cost", "grid"}
    found = {path.name for path in (run / "figures").iterdir()}
    assert found == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for path in (run / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 700
    for path in (run / "figures").glob("*.svg"):
        assert "</svg>" in path.read_text()


def test_the_schema_of_the_data_is_published() -> None:
    assert Path("docs/report.schema.json").read_text() == schema_text()


def test_the_goal_can_be_changed_and_few_tries_are_owned_up_to(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    page = Page(write_report(run, max_drop=0.02, max_attack=0.01, out=tmp_path / "out"))
    assert "No trial meets both goals" in page.text
    assert "64 tries an attack are too few to show at most 1 %" in page.text
    assert "381 tries without one are needed" in page.text
    assert not (run / "report.html").exists()
    data = ReportData.model_validate_json((tmp_path / "out/report.json").read_bytes())
    assert data.recommended is None
    assert data.goal.max_attack_accuracy == 0.01


def test_a_price_gives_money(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    page = Page(write_report(run, hour_price=3600.0))
    data = ReportData.model_validate_json((run / "report.json").read_bytes())
    assert data.costs[0].money == pytest.approx(data.costs[0].total)
    assert "at 3.6e+03 an hour" in page.text


def test_ranks_follow_the_rule(run: Path) -> None:
    data = ReportData.model_validate_json((run / "report.json").read_bytes())
    ranks = {t.index: t.rank for t in data.trials if t.rank}
    assert ranks == {5: 1, 3: 2, 2: 3}
    assert [t.index for t in data.trials if t.goal_shown] == [5]


def test_people_stand_worst_first_with_their_own_accuracy(tmp_path: Path) -> None:
    def score(name: str, right: int) -> PersonScore:
        return PersonScore(pseudonym=name, accuracy=Rate.of(right, 10), receivers=Rate.of(9, 10))

    records = [
        r.model_copy(update={"people": tuple(score(pseudonym(i), 9 - i) for i in range(8))})
        for r in (fake_record(0), fake_record(5))
    ]
    run = write_fake_run(tmp_path, records)
    write_report(run)
    table = ReportData.model_validate_json((run / "report.json").read_bytes()).people
    columns = {(c.group, c.title): c for c in table.columns}
    assert table.columns[0].values == tuple(pseudonym(i) for i in range(8))
    assert columns["PPA: shows the person", "DCD trial 5"].k == (1, 0, 0, 0, 0, 0, 0, 0)
    assert columns["recognised on own test images", "DCD trial 5"].k == tuple(range(9, 1, -1))
    assert columns["bystanders given wrong labels", "DCD trial 5"].n == (10,) * 8


def test_two_seeds_are_pooled_and_other_trials_kept(tmp_path: Path) -> None:
    second = [
        r.model_copy(update={"seed": 1, "trial_id": f"b{r.trial_id[1:]}"})
        for r in (fake_record(0), fake_record(3))
    ]
    spec = ExperimentSpec(storage=str(tmp_path), seed=1)
    runs = [
        write_fake_run(tmp_path, [fake_record(0), fake_record(3), fake_record(5)]),
        write_fake_run(tmp_path, second, spec),
    ]
    page = write_report(*runs, out=tmp_path / "both")
    data = ReportData.model_validate_json((tmp_path / "both/report.json").read_bytes())
    assert data.seeds == (0, 1)
    assert len(data.trials) == 3
    tries = {t.title: t.worst_attack.n for t in data.trials if t.worst_attack}
    assert tries == {"": 128, "seeds 0, 1": 128, "trial 5 of seed 0": 64}
    assert len(data.reproduce) == 2
    assert "pooled over their seeds" in Page(page).text


def test_real_people_are_watermarked(tmp_path: Path) -> None:
    plain = np.full((1, 32, 32, 3), 90, np.uint8)
    marked = watermark(plain)
    assert marked.shape == (1, 96, 96, 3)
    assert (marked != 90).mean() > 0.03


def test_settings_that_go_with_an_objective_are_found() -> None:
    records = [fake_record(i) for i in (1, 2, 3, 5, 6)] * 2
    found = {(e.setting, e.objective): e for e in effects(records)}
    effect = found["mislabel_fraction", "worst attack"]
    values = [r.settings["mislabel_fraction"] for r in records]
    rates = [r.worst_attack.value for r in records if r.worst_attack]
    assert effect.rho == pytest.approx(spearmanr(values, rates).statistic, abs=1e-4)
    assert -1 <= effect.low <= effect.rho < effect.high
    assert effects(records[:5]) == []
