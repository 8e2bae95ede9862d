"""A headless Chromium, driven by its chromium-driver: WebDriver over HTTP, without a package for it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

BROWSERS = ("chromium", "google-chrome")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=900,640",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # what the protocol calls a reference to one
TIMEOUT_S = 60


def browser_here() -> str | None:
    """The Chromium of this machine, if its driver is there too."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found if shutil.which("chromedriver") else None


class Window:
    """A session of the driver at `address`."""

    def __init__(self, address: str, binary: str) -> None:
        self._address = address
        options = {"binary": binary, "args": ARGUMENTS}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self._session = ""
        self._session = (
            f"/session/{self._ask('POST', '/session', capabilities=wanted)['sessionId']}"
        )

    def open(self, url: str) -> None:
        """Go there, and wait until the page is loaded."""
        self._ask("POST", "/url", url=url)

    @property
    def url(self) -> str:
        return str(self._ask("GET", "/url"))

    @property
    def title(self) -> str:
        return str(self._ask("GET", "/title"))

    def run(self, script: str) -> Any:
        """What a script of the driver's, to which the policy of the page does not apply, returns."""
        return self._ask("POST", "/execute/sync", script=script, args=[])

    def follow(self, css: str) -> None:
        """Click on the first such element, which leads to another page, and wait until that is loaded."""
        here = self.url
        found = self._ask("POST", "/element", using="css selector", value=css)
        self._ask("POST", f"/element/{found[ELEMENT]}/click")
        until = time.monotonic() + TIMEOUT_S
        while self.url == here or self.run("return document.readyState") != "complete":
            assert time.monotonic() < until, f"{css} leads nowhere"
            time.sleep(0.01)

    def screenshot(self) -> bytes:
        """As PNG."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def close(self) -> None:
        self._ask("DELETE", "")

    def _ask(self, method: str, command: str, **values: Any) -> Any:
        data = json.dumps(values).encode() if method == "POST" else None
        request = Request(f"{self._address}{self._session}{command}", data, method=method)
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)["value"]


@contextmanager
def window(binary: str) -> Iterator[Window]:
    """A browser, which ends with its driver."""
    words = ["chromedriver", "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            port = next(
                found[1] for line in driver.stdout if (found := re.search(r"on port (\d+)\.", line))
            )
            made = Window(f"http://127.0.0.1:{port}", binary)
            try:
                yield made
            finally:
                made.close()
        finally:
            driver.terminate()
