"""The pages of browse in a Chromium: what is planted in a store does not run, pictures are seen, and links lead on.

docs/browse.png is of one of these pages:
TILEKV_NIGHTLY=1 TILEKV_SCREENSHOT=docs/browse.png python -m pytest tests/adapters/test_browse.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import tilekv
from samples import NIGHTLY
from webdriver import Window, browser_here, window

SCRIPT = "<script>document.title='owned'</script>"
SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload=\"document.title='owned'\"><script>document.title='owned'</script></svg>"
PICTURE = "2024/waves.jpg"
SCREENSHOT = os.environ.get("TILEKV_SCREENSHOT")  # where one is kept: docs/browse.png

pytestmark = [
    pytest.mark.skipif(not NIGHTLY, reason="a browser: TILEKV_NIGHTLY=1"),
    pytest.mark.skipif(browser_here() is None, reason="no Chromium with its driver"),
]


def waves() -> bytes:
    """A JPEG of 480 times 270 pixels."""
    y, x = np.mgrid[0:270, 0:480] / 270
    bands = [np.sin(9 * x + 4 * np.sin(5 * y + phase)) for phase in (0, 0.5, 1)]
    pixels = (127 + 120 * np.stack(bands, 2)).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=80)
    return file.getvalue()


@pytest.fixture(scope="module")
def browser() -> Iterator[Window]:
    with window(str(browser_here())) as made:
        yield made


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browsed")
    with tilekv.open(str(folder / "photos.kv"), "x") as db:
        db.put_many({f"many/{i:04}": b"%d" % i for i in range(250)})
        db[SCRIPT] = SCRIPT.encode()
        db["planted.svg"] = SVG.encode()
        db[PICTURE] = waves()
    words = [sys.executable, "-P", "-m", "tilekv", "browse", "photos.kv"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder) as run:
        assert run.stdout is not None
        yield run.stdout.readline().strip()
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=20) == 0


def keys(browser: Window) -> list[str]:
    found: list[str] = browser.run(
        "return [...document.querySelectorAll('td a')].map(a => a.innerText)"
    )
    return found


def open_key(browser: Window, url: str, prefix: str) -> None:
    """The page of the only key with a prefix, by the links of the pages."""
    browser.open(url)
    browser.run(f"document.querySelector('input').value = {prefix!r}")
    browser.follow("form button")
    assert len(keys(browser)) == 1
    browser.follow("td a")


def test_a_script_that_nothing_holds_back_is_noticed(browser: Window) -> None:
    browser.open(f"data:text/html,<title>page</title>{SCRIPT}")
    assert browser.title == "owned"


def test_a_click_pages_on(browser: Window, url: str) -> None:
    browser.open(url)
    seen = keys(browser)
    assert len(seen) == 100
    for _ in range(2):
        browser.follow("#next")
        seen += keys(browser)
    assert sorted(seen) == sorted(
        [*(f"many/{i:04}" for i in range(250)), SCRIPT, "planted.svg", PICTURE]
    )
    browser.follow("#back")
    assert keys(browser) == seen[100:200]


def test_the_style_is_taken(browser: Window, url: str) -> None:
    browser.open(url)
    assert (
        browser.run("return getComputedStyle(document.querySelector('td.n')).textAlign") == "right"
    )


@pytest.mark.parametrize("prefix", ["<", "planted"])
def test_what_is_planted_does_not_run(browser: Window, url: str, prefix: str) -> None:
    open_key(browser, url, prefix)
    assert "value?key=" in browser.url
    assert "document.title" in browser.run("return document.querySelector('pre').innerText")
    assert browser.run("return document.querySelectorAll('script, svg, img').length") == 0
    assert "owned" not in browser.title.replace(SCRIPT, "")
    value = browser.url
    for form in ("picture", "text", "JSON", "hex"):
        browser.open(f"{value}&form={form}")
        assert browser.run("return document.querySelectorAll('script, svg, img').length") == 0
    browser.open(value.replace("/value?", "/picture?") + "&attr=value")
    assert browser.title != "owned"
    assert "no picture" in browser.run("return document.body.innerText")


def test_what_would_get_through_is_held_back_by_the_policy(browser: Window, url: str) -> None:
    browser.open(url)
    browser.run(
        "const s = document.createElement('script'); s.textContent = \"document.title='owned'\"; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', `<svg onload=\"document.title='owned'\"></svg>"
        "<img src='missing' onerror=\"document.title='owned'\">`)"
    )
    browser.run("return new Promise(done => setTimeout(done, 300))")
    assert browser.title.endswith("photos.kv")


def test_a_picture_is_seen(browser: Window, url: str) -> None:
    open_key(browser, url, PICTURE)
    size = browser.run(
        "const i = document.querySelector('img'); return [i.naturalWidth, i.naturalHeight]"
    )
    assert size == [480, 270]
    shot = browser.screenshot()
    assert shot.startswith(b"\x89PNG")
    if SCREENSHOT:
        # Of few colours, to be small.
        image = Image.open(BytesIO(shot)).convert("RGB")
        image.quantize(256).save(SCREENSHOT, optimize=True)


def test_fragments_are_drawn(browser: Window, url: str) -> None:
    browser.open(url)
    browser.follow("nav a:last-child")
    assert browser.run("return document.querySelector('svg rect').getBBox().width") > 0


def test_other_names_of_this_machine_are_refused(browser: Window, url: str) -> None:
    browser.open(url.replace("127.0.0.1", "localhost"))
    assert len(keys(browser)) == 100
    browser.open(url.replace("127.0.0.1", "other.localhost"))
    assert "asked as 127.0.0.1" in browser.run("return document.body.innerText")
