"""A headless Chromium over its own debugging pipe (Chrome DevTools Protocol), without a further package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE_SECONDS = 30.0
_FIRST_FREE = 10


def find() -> str | None:
    """Where Chromium is, None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One window of a browser with a fresh profile."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, ours = (fcntl.fcntl(end, fcntl.F_DUPFD, _FIRST_FREE) for end in os.pipe())
        theirs, from_browser = (fcntl.fcntl(end, fcntl.F_DUPFD, _FIRST_FREE) for end in os.pipe())
        self._in, self._out, self._next, self._rest = theirs, ours, 0, b""
        self.events: list[dict[str, Any]] = []

        def place() -> None:
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        options = "--headless --remote-debugging-pipe --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage"
        self._process = subprocess.Popen(
            [program, *options.split(), f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,  # noqa: PLW1509 - two calls of dup2, as Chromium wants these two descriptors
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._session = ""
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read(_PATIENCE_SECONDS)
            if found.get("id") == self._next:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def _read(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(line)
        if "method" in found:
            self.events.append(found)
        return found

    def script(self, expression: str) -> Any:
        """Evaluate an expression in the page, and wait for its promise."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']['exception'].get('description')}")
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                found = self.script(expression)
            except RuntimeError:  # the page is just being exchanged
                found = None
            if found:
                return found
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} did not come true: {self.script('document.body.innerText')[:500]}")
            time.sleep(0.05)

    def open(self, url: str) -> None:
        self.script("window.before = true")
        self.send("Page.navigate", url=url)
        self.until("!window.before && document.readyState === 'complete'")

    def key(self, name: str, text: str = "") -> None:
        code = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39}.get(name, 0)
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def look(self, *, width: int = 1100, height: int = 900, dark: bool = False, scale: int = 1) -> None:
        """Set the size of the window, and light or dark."""
        mobile = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(found["data"]))

    def scripts_off(self, off: bool = True) -> None:
        self.send("Emulation.setScriptExecutionDisabled", value=off)

    @property
    def problems(self) -> list[str]:
        """Errors of scripts, of the policy and of loading since the start."""
        self.script("1")
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                found.append(params["entry"]["text"])
        return found

    @property
    def asked(self) -> list[str]:
        """Addresses of all requests since the start."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
