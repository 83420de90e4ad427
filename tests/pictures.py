"""Makes the pictures of the README from a finished run of the built-in faces, by a real browser.

dcdctl sweep && python -m tests.pictures .dcdctl/runs/*     # writes docs/report.png, docs/grid.png
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.report import write_report
from orchestrator.report_pdf import find_browser
from tests.orchestrator.chromium import chromium

DOCS = Path(__file__).parents[1] / "docs"
WIDE = 1240
"""Pixels of the picture."""

READY = "document.documentElement?.dataset.ready === 'yes'"
BELOW = "document.querySelector('#frontier .key').getBoundingClientRect().bottom + 6"
"""Where the first page ends: under the legend of the frontier."""


def take_pictures(run: Path, docs: Path) -> None:
    """Write the report's first page as `report.png`, and its reconstructions as `grid.png`.

    Args:
        run: folder of a finished run.
        docs: where the pictures go.
    """
    browser = find_browser()
    assert browser is not None, "no Chromium is installed"
    page = write_report(run)
    with (
        # A browser that ends still writes into its profile for a moment.
        tempfile.TemporaryDirectory(
            prefix="dcdctl-pictures-", ignore_cleanup_errors=True
        ) as profile,
        chromium(browser, Path(profile)) as tab,
    ):
        tab.look(WIDE, 900)
        tab.open(page, READY)
        tab.look(WIDE, round(tab.run(BELOW)))
        tab.run("document.documentElement.style.overflow = 'hidden'")  # no scroll bar
        time.sleep(0.5)  # until it is drawn in its new size
        tab.picture(docs / "report.png", whole=False)
    shutil.copyfile(run / "figures" / "grid.png", docs / "grid.png")


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]), DOCS)
