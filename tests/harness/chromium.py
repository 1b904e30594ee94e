"""A real Chromium for tests: driven over its own DevTools protocol through two pipes, so that no driver is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# The protocol speaks on descriptors 3 and 4; pass_fds keeps numbers as they are, so they are moved there first.
LAUNCHER = """
import fcntl, os, sys
first, second, *command = sys.argv[1:]
down, up = (fcntl.fcntl(int(given), fcntl.F_DUPFD, 10) for given in (first, second))  # out of the way of 3 and 4
os.dup2(down, 3)
os.dup2(up, 4)
os.execvp(command[0], command)
"""
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # within containers there is none; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def executable() -> str | None:
    """Chromium, or what is near enough; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser process; use as a context manager.

    Args:
        timeout: seconds that any one answer may take.
    """

    def __init__(self, timeout: float = 60.0) -> None:
        self.timeout = timeout
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        down_read, self._down = os.pipe()
        self._up, up_write = os.pipe()
        path = executable()
        assert path is not None
        command = [path, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(down_read), str(up_write), *command],
            pass_fds=(down_read, up_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(down_read)
        os.close(up_write)
        os.set_blocking(self._up, False)
        self._buffer = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self.process.wait(self.timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self._down)
            os.close(self._up)
            self.profile.cleanup()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile are kept in ``events``."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._down, json.dumps(message).encode() + b"\0")
        answer: dict[str, Any] = {}
        self.wait(lambda got: got.get("id") == self._last and bool(answer.update(got) or True))
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Read messages until one is wanted."""
        end = time.monotonic() + self.timeout
        while time.monotonic() < end:
            while b"\0" in self._buffer:
                raw, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(raw)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return
            try:
                read = os.read(self._up, 1 << 20)
                assert read, "Chromium has gone"
                self._buffer += read
            except BlockingIOError:
                time.sleep(0.005)
        raise AssertionError(f"Chromium did not answer within {self.timeout:g} s")

    def page(self, width: int = 1200, height: int = 900, *, dark: bool = False) -> Page:
        """A new tab."""
        return Page(self, width, height, dark=dark)


class Page:
    """One tab, with everything that it logged and asked for."""

    def __init__(self, browser: Chromium, width: int, height: int, *, dark: bool) -> None:
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.target = target
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.scheme(dark=dark)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def scheme(self, *, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def open(self, file: Path) -> Page:
        """Load a file and wait until it is there."""
        self.call("Page.navigate", url=file.as_uri())
        self.browser.wait(lambda m: m.get("method") == "Page.loadEventFired" and m.get("sessionId") == self.session)
        return self

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as a person presses it: ``Tab``, ``Enter``, ``Space`` ..."""
        known = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, "")}
        code, text = known[key]
        given = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def events(self, method: str) -> list[dict[str, Any]]:
        """What the tab told of since it was made."""
        return [
            event["params"]
            for event in self.browser.events
            if event["method"] == method and event.get("sessionId") == self.session
        ]

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """The page as PNG, all of it or what is in view."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        file.write_bytes(base64.b64decode(found["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
