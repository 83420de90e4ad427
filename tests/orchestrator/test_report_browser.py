"""The report in a real browser: it works, asks for nothing, and stays quick when it is long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.records import Accuracy, Rate, TrialRecord
from orchestrator.report import write_report
from orchestrator.report_pdf import find_browser, write_pdf
from tests.orchestrator.chromium import Tab, chromium
from tests.orchestrator.fake_run import fake_record, write_fake_run

BROWSER = find_browser()
READY = "document.documentElement?.dataset.ready === 'yes'"
HOME = "document.querySelector('[data-table=people]')"

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_fake_run(tmp_path_factory.mktemp("storage")))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(str(BROWSER), tmp_path_factory.mktemp("profile")) as found:
        yield found


def people(tab: Tab, column: int = 0) -> list[str]:
    found: list[str] = tab.run(
        f"[...{HOME}.querySelectorAll('tbody tr')].map(r => r.children[{column}].textContent)"
    )
    return found


def quiet(tab: Tab, page: Path) -> None:
    """Nothing was logged, and nothing but the file itself was asked for."""
    tab.send("Runtime.evaluate", expression="1")
    assert tab.said("Runtime.exceptionThrown") == []
    assert tab.said("Runtime.consoleAPICalled") == []
    assert tab.said("Log.entryAdded") == []
    asked = {event["request"]["url"] for event in tab.said("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} == {page.absolute().as_uri()}


@needs_browser
def test_it_works_in_a_browser_and_asks_for_nothing(tab: Tab, page: Path) -> None:
    tab.look(1280, 900)
    tab.open(page, READY)
    for name in ("frontier", "hypervolume", "settings", "cost"):
        box = tab.run(f"document.querySelector('[id^={name}-]').getBoundingClientRect().width")
        assert box > 100, name
    assert tab.run("document.querySelectorAll('.wide [id*=\"-trial-\"]').length") == 6

    before = people(tab)
    assert len(before) == 8
    tab.run(f"{HOME}.querySelectorAll('thead button')[0].click()")
    assert people(tab) == sorted(before)
    assert tab.run(f"{HOME}.querySelector('thead th').getAttribute('aria-sort')") == "ascending"
    tab.run(f"{HOME}.querySelectorAll('thead button')[1].click()")
    rates = [float(text.split("\u202f")[0]) for text in people(tab, 1)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    tab.run(
        f"(() => {{ const s = {HOME}.querySelector('input'); s.value = '{before[3]}';"
        " s.dispatchEvent(new Event('input')); })()"
    )
    assert people(tab) == [before[3]]
    quiet(tab, page)


@needs_browser
def test_a_point_tells_its_recipe_to_the_keyboard_too(tab: Tab, page: Path) -> None:
    tab.look(1280, 900)
    tab.open(page, READY)
    tab.run("document.getElementById('frontier-trial-5').focus()")
    told = tab.run("document.getElementById('tip').textContent")
    assert "mislabel fraction0.41" in told
    assert "worst attack1.6" in told
    assert tab.run("document.querySelectorAll('#tip img').length") == 4
    tab.key("Escape")
    assert tab.run("document.getElementById('tip').hidden")


@needs_browser
def test_the_colour_scheme_follows_the_system_and_the_button(tab: Tab, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.look(1280, 900, dark=True)
    tab.open(page, READY)
    dark = tab.run(ground)
    tab.run("document.getElementById('scheme').click()")
    light = tab.run(ground)
    assert dark != light
    tab.run("document.getElementById('scheme').click()")
    assert tab.run(ground) == dark
    tab.look(1280, 900, dark=True, media="print")
    assert tab.run(ground) not in (dark,)


@needs_browser
def test_a_phone_need_not_scroll_sideways(tab: Tab, page: Path) -> None:
    tab.look(400, 800)
    tab.open(page, READY)
    assert tab.run("document.documentElement.scrollWidth") <= 400
    assert tab.run("document.querySelector('.wide').getBoundingClientRect().width") == 0
    assert tab.run("document.querySelector('.narrow svg').getBoundingClientRect().width") > 250


@needs_browser
def test_it_is_printed_to_a_pdf(page: Path) -> None:
    found = write_pdf(page)
    assert found.read_bytes().startswith(b"%PDF-")
    assert found.stat().st_size > 20_000


def long_run(trials: int, people: int) -> list[TrialRecord]:
    """A fleet: the control and one trial attacked everybody, the others a sample of 16."""
    whole = [fake_record(0, people), fake_record(5, people)]
    sample = [fake_record(i, 16) for i in (1, 2, 3, 6)]
    found = []
    for index in range(trials):
        like = whole[index] if index < 2 else sample[index % 4]
        hits = 397 - (index * 7) % 30 if index else 399
        clean = Accuracy(
            overall=Rate.of(hits, 400),
            targets=Rate.of(min(80, hits // 5), 80),
            bystanders=Rate.of(hits - hits // 5, 320),
        )
        settings = like.settings and like.settings | {
            "mislabel_fraction": round(0.2 + 0.4 * ((index * 37) % 101) / 101, 4),
            "target_sigma": round(0.01 + 0.03 * ((index * 53) % 97) / 97, 5),
        }
        changes = {"index": index, "trial_id": f"{index:012x}", "settings": settings}
        found.append(like.model_copy(update=changes | {"clean_accuracy": clean}))
    return found


@pytest.mark.slow
@needs_browser
def test_a_thousand_trials_and_ten_thousand_people(tab: Tab, tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, long_run(1000, 10_000), pictures=False)
    started = time.monotonic()
    page = write_report(run)
    built = time.monotonic() - started
    tab.look(1280, 900)
    shown = tab.open(page, f"{HOME} && {READY}")
    size = page.stat().st_size
    print(f"built in {built:.1f} s, {size / 1e6:.2f} MB, ready after {shown:.2f} s")
    assert tab.run(f"{HOME}.querySelector('[role=status]').textContent") == "1–25 of 10000"
    assert size <= 5e6
    assert built <= 10
    assert shown <= 3
