"""A headless Chromium, driven by the DevTools protocol over a pipe: no port, no package."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.report_pdf import browser_command


class Tab:
    """One page in the browser, with everything that it logged or asked for."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.ids = itertools.count(1)
        self.rest = b""
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and return its result; events that come in between are kept."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next(60)).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, deadline_s: float) -> dict[str, Any]:
        end = time.monotonic() + deadline_s
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {deadline_s} s"
            part = os.read(self.read, 1 << 20)
            assert part, "Chromium ended"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript, wait for its promise, and return the value."""
        found = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, page: Path, ready: str, deadline_s: float = 60) -> float:
        """Open a file; return the seconds until an expression was true."""
        started = time.monotonic()
        self.send("Page.navigate", url=page.absolute().as_uri())
        while not self.run(ready):
            assert time.monotonic() - started < deadline_s, f"never true: {ready}"
            time.sleep(0.02)
        return time.monotonic() - started

    def look(self, width: int, height: int, *, dark: bool = False, media: str = "") -> None:
        """Set the window's size, the colour scheme and the medium."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def picture(self, path: Path, whole: bool = True) -> None:
        """Write a screenshot."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def said(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events of a kind so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def key(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)


@contextlib.contextmanager
def chromium(browser: str, profile: Path) -> Iterator[Tab]:
    """Start a browser that reaches nothing, and end it."""
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()
    command = browser_command(browser, profile)
    command += ["--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND"]
    # The protocol is spoken over the descriptors 3 and 4; bash knows descriptors above 9.
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{to_us}', "bash", *command],
        pass_fds=(to_browser, to_us),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(to_us)
    try:
        yield Tab(from_browser, from_us)
    finally:
        os.close(from_us)
        os.close(from_browser)
        process.terminate()
        process.wait(30)
