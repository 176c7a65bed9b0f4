"""examples/browser: an export that captions in the browser alone, from any server of files, without a word to another host."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from browser import LOOKS, axe_violations, chromium
from img2seq.data.image import ImageSpec, from_any
from img2seq.inference.captioner import Captioner
from img2seq.run.folder import file_digest, read_json
from img2seq.run.onnx_folder import SECTION, OnnxFolder
from img2seq.run.write import write_json
from npm import example, program
from pictures import other_colours

pytest.importorskip("playwright", reason="needs playwright, which is not installed")
from playwright.sync_api import Browser, Page, Route, expect

PILLOW = int(PIL.__version__.split(".")[0])
READ = """async (options) => {
  const { readPicture } = await import("./picture.js");
  const file = document.getElementById("files").files[0];
  return Array.from(await readPicture(file, options));
}"""
DROP = """async ([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def site(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example as its README builds it, with an export in model/."""
    folder = example("browser", tmp_path_factory.mktemp("site"))
    subprocess.run([program("node"), "vendor.mjs"], cwd=folder, check=True, timeout=60)
    (folder / "node_modules").unlink()
    shutil.copytree(exported, folder / "model")
    return folder


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """Serve the folder, as any server of files does."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def opened(browser: Browser, url: str, *, ready: bool = True, held: list[Route] | None = None) -> Iterator[Page]:
    """Open the page. Nothing that is done there may ask another host, break a rule of the page's policy or raise an error.

    Args:
        browser: that opens it.
        url: of the page.
        ready: wait until the model is loaded.
        held: keeps the request for the encoder until the test lets it go on.
    """
    page = browser.new_page()
    if held is not None:
        page.route("**/onnx/encoder_model.onnx", lambda route: held.append(route))
    asked: list[str] = []
    wrong: list[str] = []
    page.on(
        "filechooser", lambda chooser: None
    )  # else Playwright begins to look for one only as a key is pressed already
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.extend([message.text] * ("Content Security" in message.text)))
    page.goto(url)
    if ready:
        expect(page.locator("#state")).to_contain_text("Ready", timeout=60_000)
    yield page
    page.close()
    host = url.split("/")[2]
    assert [each for each in asked if not each.startswith((f"http://{host}/", "blob:", "data:"))] == []
    assert wrong == []


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    with opened(browser, url) as opened_page:
        yield opened_page


def captions(page: Page, pictures: list[Path]) -> list[str]:
    """Choose pictures and return their captions, in this order."""
    before = page.locator("#pictures li").count()
    page.set_input_files("#files", pictures)
    expect(page.locator("#pictures li:not([aria-busy])")).to_have_count(before + len(pictures), timeout=120_000)
    return page.locator("#pictures .caption").all_inner_texts()[: len(pictures)][::-1]


def test_its_captions_are_those_of_the_run(page: Page, run: Path, images: Path) -> None:
    pictures = sorted(images.glob("*.png"))
    expected = [caption.text for caption in Captioner.load(run, device="cpu").caption([str(path) for path in pictures])]
    assert len(set(expected)) > 4
    assert captions(page, pictures) == expected


STORED = {
    "tuned": {"beam_size": 2, "length_penalty": 0.0, "no_repeat_ngram": 1},
    "greedy": {
        "method": "greedy",
        "min_length": 8,
        "repetition_penalty": 1.5,
        "repetition_penalty_max_window": 2,
        "frequency_penalty": 0.5,
        "frequency_penalty_max_window": 3,
    },
}


@pytest.mark.parametrize("decoding", STORED.values(), ids=STORED.keys())
def test_it_searches_as_the_export_says(
    browser: Browser, url: str, site: Path, exported: Path, images: Path, decoding: dict[str, Any]
) -> None:
    pictures = sorted(images.glob("*.png"))[:8]
    folder = OnnxFolder(shutil.copytree(site / "model", site / "stored"))
    try:
        config, said = read_json(folder.config), read_json(folder.export)
        config[SECTION]["decoding"] = decoding  # as where the run has a decoding.json
        write_json(folder.config, config)
        said["sha256"]["config.json"] = file_digest(folder.config)
        write_json(folder.export, said)
        expected, usual = ([c.text for c in Captioner.load(path).caption(pictures)] for path in (folder.path, exported))
        with opened(browser, f"{url}?model=stored") as page:
            assert captions(page, pictures) == expected != usual
    finally:
        shutil.rmtree(folder.path)


@pytest.fixture(scope="module")
def odd_pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return pictures of many kinds."""
    folder = tmp_path_factory.mktemp("pictures")
    pick = np.random.default_rng(0)
    noise = Image.fromarray(pick.integers(0, 256, (30, 45, 3), dtype=np.uint8)).resize(
        (900, 600), Image.Resampling.BICUBIC
    )
    turned = Image.Exif()
    turned[274] = 6
    transparent = noise.convert("RGBA")
    transparent.putalpha(Image.new("L", noise.size, 255))
    transparent.paste((0, 0, 0, 0), (100, 100, 500, 500))
    noise.crop((0, 0, 400, 300)).save(folder / "small.jpg")
    noise.save(folder / "large.jpg", quality=90)
    noise.save(folder / "turned.jpg", exif=turned)
    noise.save(folder / "profile.jpg", icc_profile=other_colours())
    noise.save(folder / "progressive.jpg", progressive=True, subsampling=0)
    noise.convert("L").save(folder / "gray.jpg")
    noise.convert("L").save(folder / "gray.png")
    noise.convert("P").save(folder / "palette.png")
    noise.save(folder / "lossless.webp", lossless=True)
    transparent.save(folder / "transparent.png")
    return {path.name: path for path in folder.iterdir()}


NAMES = ["small.jpg", "large.jpg", "turned.jpg", "profile.jpg", "progressive.jpg", "gray.jpg", "gray.png", "palette.png", "lossless.webp", "transparent.png"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("approach", ["resize", "centercrop"])
def test_pixels_are_those_of_img2seq(
    page: Page, odd_pictures: dict[str, Path], name: str, mode: Any, approach: Any
) -> None:
    if PILLOW < 13 and name == "turned.jpg":
        pytest.skip("Pillow resizes tall pictures in another order since 13")
    spec = ImageSpec(32, 33, mode, approach)
    height, width = spec.with_margin() if approach == "centercrop" else (32, 33)
    page.set_input_files("#files", [])
    page.evaluate("document.getElementById('files').addEventListener('change', (event) => event.stopImmediatePropagation(), { capture: true, once: true })")  # fmt: skip
    page.set_input_files("#files", odd_pictures[name])
    options = {
        "size": {"height": height, "width": width},
        "crop": {"height": 32, "width": 33} if approach == "centercrop" else None,
        "channels": 1 if mode == "L" else 3,
        "mostPixels": 10**8,
    }
    found = np.array(page.evaluate(READ, options)).reshape(32, 33, -1)
    np.testing.assert_array_equal(found, from_any(odd_pictures[name], spec))


def test_what_is_no_picture_is_one_sentence(page: Page, images: Path, tmp_path: Path) -> None:
    broken, cut, empty = tmp_path / "notes.png", tmp_path / "cut.png", tmp_path / "empty.jpg"
    broken.write_text("not a picture")
    cut.write_bytes(min(images.glob("*.png")).read_bytes()[:60])
    empty.write_bytes(b"")
    found = captions(page, [broken, cut, empty, min(images.glob("*.png"))])
    assert found[:3] == ["No caption: it is no picture that this browser reads."] * 3
    assert found[3].endswith("."), "the next one is captioned all the same"
    assert "No caption" not in found[3]


def test_keyboard_drop_and_paste(page: Page, images: Path) -> None:
    picture = min(images.glob("*.png"))
    page.reload()
    expect(page.locator("#state")).to_contain_text("Ready", timeout=60_000)
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(picture)
    expect(page.locator("#pictures li:not([aria-busy])")).to_have_count(1, timeout=60_000)
    page.evaluate(DROP, [picture.name, list(picture.read_bytes())])
    expect(page.locator("#pictures li:not([aria-busy])")).to_have_count(2, timeout=60_000)
    assert len(set(page.locator("#pictures .caption").all_inner_texts())) == 1
    expect(page.locator("#pictures img").first).to_have_js_property("naturalWidth", 40)


def test_pictures_given_while_the_model_loads_wait_for_it(browser: Browser, url: str, images: Path) -> None:
    held: list[Route] = []
    with opened(browser, url, ready=False, held=held) as page:
        page.set_input_files("#files", sorted(images.glob("*.png"))[:2])
        expect(page.locator("#pictures li")).to_have_count(2)
        expect(page.locator("#state")).to_contain_text("Loading")
        while not held:
            page.wait_for_timeout(10)
        held[0].continue_()
        expect(page.locator("#pictures li:not([aria-busy])")).to_have_count(2, timeout=60_000)


DAMAGE = {
    "no export": ("config.json", None, "config.json cannot be read (404)"),
    "no graph": ("onnx/encoder_model.onnx", None, "encoder_model.onnx cannot be read (404)"),
    "broken settings": ("generation_config.json", "{", "generation_config.json is not JSON"),
    "another model": ("config.json", '{"model_type": "vit"}', "it is not an export of img2seq"),
    "another search": ("config.json", '{"img2seq": {"decoding": {"method": "sample"}}}', "its captions are sampled"),
    "a broken graph": ("onnx/decoder_model_merged.onnx", "no graph", "decoder_model_merged.onnx is no graph"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_is_no_export_is_one_sentence(browser: Browser, url: str, site: Path, what: str) -> None:
    name, text, message = DAMAGE[what]
    shutil.copytree(site / "model", site / "damaged")
    try:
        (site / "damaged" / name).unlink()
        if text is not None:
            (site / "damaged" / name).write_text(text)
        with opened(browser, f"{url}?model=damaged", ready=False) as page:
            expect(page.locator("#problem")).to_contain_text(message, timeout=60_000)
            expect(page.locator("#problem")).to_contain_text("No model could be loaded from /damaged/")
            expect(page.locator("#choose")).to_be_disabled()
            page.evaluate(DROP, ["notes.png", [1, 2, 3]])
            expect(page.locator("#pictures li")).to_have_count(0)  # it would wait for ever
            expect(page.locator("#state")).to_be_hidden()
    finally:
        shutil.rmtree(site / "damaged")


def test_a_model_of_another_host_is_refused(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}?model=https://example.org/model", ready=False) as page:
        expect(page.locator("#problem")).to_contain_text("it is on another host")


@pytest.mark.parametrize("look", LOOKS)
def test_it_is_accessible(browser: Browser, url: str, images: Path, tmp_path: Path, look: str) -> None:
    (tmp_path / "notes.png").write_text("not a picture")
    with browser.new_context(bypass_csp=True, **LOOKS[look]) as context:  # axe-core is put into the page
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#state")).to_contain_text("Ready", timeout=60_000)
        captions(page, [min(images.glob("*.png")), tmp_path / "notes.png"])
        assert axe_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
