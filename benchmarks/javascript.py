"""How many captions are equal in Node and in the browser: an export there, beside `img2seq` here.

    (cd examples/node && npm install --ignore-scripts)
    (cd examples/browser && npm install --ignore-scripts && npm run vendor)
    python -m benchmarks javascript EXPORT PHOTOS        a minute or two for 250 photographs

Node writes captions greedily, the page with five beams; each is compared with the same of `Captioner`. What differs is how a picture is read:
transformers.js follows colour profiles and skips pixels where it makes a picture smaller (`resample` 2), or takes a wider filter (1).
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from img2seq.inference.captioner import Captioner

EXAMPLES = Path(__file__).parents[1] / "examples"
CHROMIUM = "/usr/bin/chromium"


def in_node(export: Path, pictures: Sequence[Path], *, resample: int = 2, options: Sequence[str] = ()) -> list[str]:
    """Return what examples/node/caption.mjs writes of each picture."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(export, Path(folder) / "export"))
        settings = copy / "preprocessor_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"resample": resample}))
        command = ["node", str(EXAMPLES / "node/caption.mjs"), *options, str(copy), *map(str, pictures)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t")[1] for line in done.stdout.splitlines()]


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def in_the_page(export: Path, pictures: Sequence[Path]) -> list[str]:
    """Return what the page of examples/browser shows of each picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        site = Path(shutil.copytree(EXAMPLES / "browser", Path(folder) / "site", ignore=shutil.ignore_patterns("node_modules", "model")))  # fmt: skip
        shutil.copytree(export, site / "model")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.locator("#choose:enabled").wait_for()
        page.set_input_files("#files", [str(picture) for picture in pictures])
        page.locator("#pictures li:not([aria-busy])").nth(len(pictures) - 1).wait_for(timeout=10_000 * len(pictures))
        found = page.locator("#pictures .caption").all_inner_texts()[::-1]
        browser.close()
        server.shutdown()
    return found


def main(options: Sequence[str]) -> None:
    """Print a line for each way, and the time that each took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks javascript")
    parser.add_argument("export", type=Path)
    parser.add_argument("photos", type=Path)
    arguments = parser.parse_args(options)
    for needed in ("node/node_modules", "browser/vendor"):
        if not (EXAMPLES / needed).is_dir():
            sys.exit(f"benchmarks: javascript: expected {EXAMPLES / needed}: see the head of {__file__}")
    pictures = sorted(arguments.photos.glob("*.jpg"))
    captioner = Captioner.load(arguments.export)
    greedy, beam = (
        [c.text for c in captioner.caption([str(p) for p in pictures], method=m)] for m in ("greedy", "beam")
    )
    node = functools.partial(in_node, arguments.export, pictures)
    ways: dict[str, tuple[list[str], Callable[[], list[str]]]] = {
        "transformers.js, its own resize": (greedy, node),
        "transformers.js, resample 1": (greedy, functools.partial(node, resample=1)),
        "transformers.js, pixels read as ours": (greedy, functools.partial(node, options=["--pillow"])),
        "the page, in Chromium": (beam, functools.partial(in_the_page, arguments.export, pictures)),
    }
    for name, (expected, run) in ways.items():
        begun = time.monotonic()
        n_equal = sum(a == b for a, b in zip(run(), expected, strict=True))
        each_ms = 1000 * (time.monotonic() - begun) / len(pictures)
        print(
            f"{name:<38}{n_equal:>5} of {len(pictures)} captions equal, {each_ms:.0f} ms each, start included",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
