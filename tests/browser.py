"""A real browser for tests: Debian's Chromium, driven by Playwright, and axe-core of npm. Where one is absent, tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from npm import node_modules

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
AXE = "axe-core@4.14.1"
Look = dict[str, Any]  # of a browser's context
PHONE: Look = {"width": 390, "height": 844}
LOOKS: dict[str, Look] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": PHONE, "reduced_motion": "reduce"},
    "dark phone": {"color_scheme": "dark", "viewport": PHONE},
}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium, with a camera that shows a test picture. It finds this machine as plain.test, too, which is no secure context."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM}, which is not here")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *camera, "--host-resolver-rules=MAP plain.test 127.0.0.1"]
        )
        yield browser
        browser.close()


def axe_violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page: the rule, and where. Skips the test where it cannot be had."""
    page.evaluate((node_modules(AXE) / "axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found["violations"] for node in rule["nodes"]]  # fmt: skip
