"""The report as a PDF, printed by a headless Chromium where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tasks.errors import StoreError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)


def find_browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def browser_command(browser: str, profile: Path) -> list[str]:
    """Return the start of a command line; Chromium's sandbox refuses to run as root."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    return [browser, *QUIET, *root, f"--user-data-dir={profile}"]


def write_pdf(page: Path, deadline_s: float = 120.0) -> Path:
    """Print a report beside itself.

    Raises:
        StoreError: there is no browser, or it wrote nothing within the deadline.
    """
    browser = find_browser()
    if browser is None:
        raise StoreError(
            f"no PDF of {page}: none of {', '.join(BROWSERS)} is installed; install one, or print "
            "the page from any browser"
        )
    out = page.with_suffix(".pdf")
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="dcdctl-pdf-", ignore_cleanup_errors=True) as profile:
        command = [
            *browser_command(browser, Path(profile)),
            "--no-pdf-header-footer",
            "--virtual-time-budget=5000",
            f"--print-to-pdf={out.absolute()}",
            page.absolute().as_uri(),
        ]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=deadline_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise StoreError(
                f"no PDF of {page}: {browser} did not end within {deadline_s:.0f} s; print the "
                "page from any browser"
            ) from error
    if not out.is_file():
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason"]
        raise StoreError(f"no PDF of {page}: {browser} wrote none ({last[0]})")
    return out
