"""The page of the server as people use it: a real browser, a real server, both as users start them."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

import children
from browser import LOOKS, axe_violations, chromium
from conftest import ROOT
from img2seq.inference.captioner import Captioner
from servers import Served, serving
from word_cases import WORD_CASES

pytest.importorskip("fastapi", reason="needs img2seq[serve], which is not installed")
pytest.importorskip("playwright", reason="needs playwright, which is not installed")
from playwright.sync_api import Browser, Locator, Page, Route, expect

MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve two runs: image, and another of the same model."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(run, folder / "another")
    with serving(folder, run, folder / "another", "--max-bytes", MAX_BYTES) as found:
        yield found


@pytest.fixture(scope="module")
def captioner(run: Path) -> Captioner:
    return Captioner.load(run, device="cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def opened(browser: Browser, url: str, **look: Any) -> Iterator[Page]:
    """Open the page. Nothing that is done there may ask another host, break a rule of the page's policy or raise an error."""
    context = browser.new_context(**look)
    page = context.new_page()
    requests: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.on("filechooser", lambda _: None)  # or the first may open before Playwright looks
    page.goto(url)
    yield page
    assert {urlsplit(request).netloc for request in requests if request.startswith("http")} == {urlsplit(url).netloc}
    assert wrong == []
    context.close()


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with opened(browser, server.url) as page:
        expect(page.locator("#footer")).to_contain_text("image")
        yield page


def choose(page: Page, *paths: Path) -> None:
    page.locator("#files").set_input_files(list(paths))


def caption(page: Page, n: int = 0) -> Locator:
    return page.locator(".picture").nth(n).locator(".caption").first


def queries(page: Page) -> list[dict[str, str]]:
    """Return a list that grows by the settings of each request for a caption."""
    found: list[dict[str, str]] = []

    def note(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.path == "/caption":
            found.append({name: value for name, (value,) in parse_qs(parts.query).items()})

    page.on("request", note)
    return found


def finished(page: Page, text: str) -> None:
    expect(page.locator("#progress")).to_have_text(text, timeout=20_000)


# --- ways in


def drop(page: Page, path: Path) -> None:
    """Drag a file or a folder onto the page and let it go, as the browser has it from the system."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
        if kind == "dragOver":
            expect(page.locator("body")).to_have_class("dragging")


def test_a_dropped_picture_gets_its_caption(page: Page, images: Path, captioner: Captioner) -> None:
    drop(page, images / "000.png")
    found = captioner.caption(images / "000.png")
    expect(caption(page)).to_have_text(found.text)
    expect(page.locator("#said")).to_have_text(found.text)  # for screen readers
    expect(page.locator("body")).to_have_class("has-pictures")
    assert page.locator(".frame img").evaluate("image => image.naturalWidth") == 40
    percents = [float(word.get_attribute("data-percent") or "") for word in caption(page).locator(".word").all()]
    assert percents == pytest.approx([100 * p for p in found.token_probabilities[: len(percents)]], abs=0.6)
    assert len(percents) == len(found.text.split())


def test_the_pictures_of_a_dropped_folder_are_captioned(page: Page, images: Path, tmp_path: Path) -> None:
    (tmp_path / "trip/day 2").mkdir(parents=True)
    for name in ("10.png", "9.PNG", "day 2/1.png"):
        shutil.copy(images / "000.png", tmp_path / "trip" / name)
    (tmp_path / "trip/notes.txt").write_text("no picture")
    drop(page, tmp_path / "trip")
    finished(page, "3 of 3 captioned")
    assert page.locator(".picture .name").all_text_contents() == ["trip/9.PNG", "trip/10.png", "trip/day 2/1.png"]


def test_a_picture_is_pasted(browser: Browser, server: Served, images: Path, captioner: Captioner) -> None:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        data = base64.b64encode((images / "001.png").read_bytes()).decode()
        page.evaluate(
            """async (data) => {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
            }""",
            data,
        )
        page.keyboard.press("Control+V")
        expect(caption(page)).to_have_text(captioner.caption(images / "001.png").text)


def test_a_picture_is_taken(page: Page) -> None:
    page.click("#take")
    page.locator("#camera-take").click()  # waits until there is something to take
    expect(page.locator("#camera")).to_be_hidden()
    finished(page, "1 of 1 captioned")
    assert caption(page).inner_text()


def test_over_plain_http_the_page_works_without_a_camera(browser: Browser, server: Served, images: Path) -> None:
    """Browsers give the camera and the clipboard to secure pages alone; here another host's name without TLS."""
    with opened(browser, server.url.replace("127.0.0.1", "plain.test")) as page:
        page.click("#take")
        expect(page.locator("#camera-problem")).to_contain_text("https://")
        page.keyboard.press("Escape")
        expect(page.locator("#camera")).to_be_hidden()
        choose(page, images / "000.png")
        finished(page, "1 of 1 captioned")
        page.get_by_label("Copy: 000.png").click()
        expect(page.get_by_label("Copy: 000.png")).to_have_text("Copied")
        page.locator("#beginning").focus()
        page.keyboard.press("Control+V")
        expect(page.locator("#beginning")).to_have_value(caption(page).inner_text())


def test_everything_is_reached_with_the_keyboard(page: Page, images: Path) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))

    press("Tab")
    assert focused() == "Choose pictures"
    with page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files([images / "000.png", images / "001.png"])
    finished(page, "2 of 2 captioned")
    reached = []
    for _ in range(20):
        press("Tab")
        reached.append(focused())
        if reached[-1] == "Remove: 001.png":
            break
    first, second = (caption(page, n).locator(".word").first.inner_text() for n in (0, 1))
    actions = ["percentages", "Caption again", "Copy", "Download CSV", "Remove all"]
    assert [name for name in reached if name in actions] == actions[1:]
    tail = [
        first,
        "Copy: 000.png",
        "Again: 000.png",
        "Remove: 000.png",
        second,
        "Copy: 001.png",
        "Again: 001.png",
        "Remove: 001.png",
    ]
    assert reached[-8:] == tail  # in the order of the page; a caption is one stop
    page.locator(".word").first.focus()
    press("ArrowRight", "ArrowRight", "ArrowLeft")
    word = caption(page).locator(".word").nth(1)
    expect(word).to_be_focused()
    expect(page.locator("#said")).to_have_text(f"{word.inner_text()}: {word.get_attribute('data-percent')} %")
    page.get_by_label("Remove: 000.png").focus()
    press("Enter")
    assert focused() == "Remove: 001.png"
    press("Enter")
    assert focused() == "Choose pictures"
    expect(page.locator("#results")).to_be_hidden()


# --- several, and what a browser cannot show


def test_several_pictures_are_shown_at_once_and_captioned_in_order(
    page: Page, images: Path, captioner: Captioner
) -> None:
    paths = sorted(images.glob("*.png"))[:9]
    sent, held, is_open = queries(page), list[Route](), False
    page.route("**/caption*", lambda route: route.continue_() if is_open else held.append(route))
    choose(page, *paths)
    expect(page.locator(".picture")).to_have_count(9)
    expect(page.locator(".picture.busy")).to_have_count(3)
    assert len(sent) == len(held) == 3  # few at a time
    is_open = True
    for route in held:
        route.continue_()
    finished(page, "9 of 9 captioned")
    assert [caption(page, n).inner_text() for n in range(9)] == [captioner.caption(path).text for path in paths]
    assert page.locator(".picture .name").all_text_contents() == [path.name for path in paths]


def test_pictures_that_a_browser_cannot_show_are_captioned(
    page: Page, images: Path, tmp_path: Path, captioner: Captioner
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs img2seq[formats], which is not installed")
    pillow_heif.register_heif_opener()
    with Image.open(images / "002.png") as picture:
        for name in ("scan.tiff", "phone.heic"):
            picture.save(tmp_path / name)
    choose(page, tmp_path / "scan.tiff", tmp_path / "phone.heic")
    finished(page, "2 of 2 captioned")
    assert caption(page, 0).inner_text() == captioner.caption(tmp_path / "scan.tiff").text
    assert caption(page, 1).inner_text() == captioner.caption(tmp_path / "phone.heic").text
    assert page.locator(".kind:visible").all_text_contents() == ["TIFF", "HEIC"]


# --- what goes wrong


def test_what_is_no_picture_is_said_beside_it(page: Page, images: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    choose(page, tmp_path / "notes.png", images / "000.png", tmp_path / "empty.png")
    finished(page, "1 of 3 captioned, 2 failed")
    problems = page.locator(".picture .problem").all_text_contents()
    assert problems[1] == ""
    assert all(text.endswith(".") and "\n" not in text for text in (problems[0], problems[2]))
    assert "not an image" in problems[0]


def test_a_picture_that_is_too_large_is_not_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    sent = queries(page)
    choose(page, tmp_path / "large.png")
    expect(page.locator(".picture .problem")).to_contain_text("0.20 MB")
    assert sent == []


def test_a_picture_that_the_server_finds_too_large_is_said_beside_it(
    browser: Browser, server: Served, tmp_path: Path
) -> None:
    def without_limit(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "limits": {}})

    (tmp_path / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    with opened(browser, server.url) as page:
        page.route("**/info", without_limit)
        page.reload()
        expect(page.locator("#footer")).not_to_be_empty()
        choose(page, tmp_path / "large.png")
        expect(page.locator(".picture .problem")).to_contain_text("bytes")


def test_a_full_queue_is_asked_again(page: Page, images: Path) -> None:
    n_refused = 0

    def refuse(route: Route) -> None:
        nonlocal n_refused
        if n_refused == 2:
            route.continue_()
        else:
            n_refused += 1
            route.fulfill(status=503, headers={"Retry-After": "0.02"}, json={"error": "the queue is full"})

    page.route("**/caption*", refuse)
    choose(page, images / "000.png")
    finished(page, "1 of 1 captioned")
    assert n_refused == 2


def test_a_page_that_is_opened_while_the_model_is_loaded_waits_for_it(page: Page, images: Path) -> None:
    n_refused = 0

    def refuse(route: Route) -> None:
        nonlocal n_refused
        n_refused += 1
        if n_refused < 3:
            route.fulfill(status=503, headers={"Retry-After": "5"}, json={"error": "the model is being loaded"})
        else:
            route.continue_()

    page.route("**/info", refuse)
    page.reload()
    choose(page, images / "000.png")
    expect(page.locator("#notice")).to_contain_text("The model is being loaded.")
    finished(page, "1 of 1 captioned")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize(("status", "n_tries"), [(503, 6), (504, 1), (500, 1)])
def test_a_refusal_that_stays_is_one_sentence(status: int, n_tries: int, page: Page, images: Path) -> None:
    sent = queries(page)
    page.route(
        "**/caption*",
        lambda route: route.fulfill(status=status, headers={"Retry-After": "0.02"}, json={"error": f"it was {status}"}),
    )
    choose(page, images / "000.png")
    expect(page.locator(".picture .problem")).to_have_text(f"It was {status}.")
    assert len(sent) == n_tries
    page.unroute("**/caption*")
    page.get_by_label("Again: 000.png").click()
    finished(page, "1 of 1 captioned")


def test_a_server_that_is_gone_and_back(browser: Browser, run: Path, images: Path, tmp_path: Path) -> None:
    with serving(tmp_path, run, until="listening at") as first, opened(browser, first.url) as page:
        choose(page, images / "000.png")
        finished(page, "1 of 1 captioned")
        os.kill(first.process.pid or 0, signal.SIGKILL)
        first.process.join()
        page.get_by_role("button", name="Caption again").click()
        expect(page.locator(".picture .problem")).to_contain_text("cannot be reached")
        assert caption(page).inner_text()  # what was there stays
        port = urlsplit(first.url).port
        log = tmp_path / "log"
        with children.child(children.img2seq, ["serve", run, "--port", port], log=log) as process:
            children.wait_until(lambda: log.exists() and "ready after" in log.read_text(), process)
            page.get_by_role("button", name="Caption again").click()
            finished(page, "1 of 1 captioned")


def test_a_key_is_asked_for_only_where_it_is_needed(
    browser: Browser, page: Page, run: Path, images: Path, tmp_path: Path
) -> None:
    expect(page.locator("#key-form")).to_be_hidden()
    (tmp_path / "keys.txt").write_text("open-sesame\n")
    with (
        serving(tmp_path, run, "--api-key-file", tmp_path / "keys.txt") as closed,
        opened(browser, closed.url) as other,
    ):
        choose(other, images / "000.png")
        expect(other.locator("#key")).to_be_focused()
        other.fill("#key", "wrong")
        other.keyboard.press("Enter")
        expect(other.locator("#key-problem")).not_to_be_empty()
        expect(other.locator(".caption")).to_have_count(0)
        other.fill("#key", "open-sesame")
        other.keyboard.press("Enter")
        expect(other.locator("#key-form")).to_be_hidden()
        finished(other, "1 of 1 captioned")  # what waited is captioned now


# --- settings


def test_settings_change_the_request(page: Page, images: Path, captioner: Captioner) -> None:
    sent = queries(page)
    choose(page, images / "000.png")
    finished(page, "1 of 1 captioned")
    page.click("#settings > summary")
    page.fill("#setting-n_best", "3")
    page.fill("#setting-beam_size", "4")
    page.fill("#beginning", "there")
    page.keyboard.press("Enter")  # a form is sent with Enter
    expect(page.locator(".picture .caption")).to_have_count(3)
    found = captioner.caption(images / "000.png", beam_size=4, n_best=3, beginning="there")
    assert page.locator(".picture .caption").all_text_contents() == [
        found.text,
        *(one.text for one in found.alternatives),
    ]
    page.select_option("#setting-method", "sample")
    page.fill("#setting-temperature", "1.5")
    page.fill("#setting-seed", "9007199254740993")  # more than a number of JavaScript can tell
    page.fill("#setting-n_best", "2")
    page.fill("#beginning", "")
    page.select_option("#model", "another")
    page.get_by_role("button", name="Caption again").click()
    expect(page.locator(".picture .caption")).to_have_count(2)
    model = {"model": "image"}
    assert sent == [
        model,
        {"beam_size": "4", "n_best": "3", "beginning": "there", **model},
        {"method": "sample", "temperature": "1.5", "seed": "9007199254740993", "n_best": "2", "model": "another"},
    ]
    expect(page.locator("#setting-beam_size")).to_be_hidden()  # a sample has no beams
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.locator("#setting-beam_size")).to_have_value("5")


def test_settings_have_the_ranges_and_defaults_of_the_server(page: Page, server: Served) -> None:
    with urllib.request.urlopen(f"{server.url}/info") as answer:
        info = json.load(answer)
    most = {
        "beam_size": info["limits"]["max_rows"],
        "max_length": info["limits"]["max_tokens"],
        "n_best": 5,
    }  # of five beams
    defaults = {name: field["default"] for name, field in info["decoding"].items()} | info["models"][0][
        "decoding_defaults"
    ]
    for name, field in info["decoding"].items():
        control = page.locator(f"#setting-{name}")
        value = control.input_value()
        assert value == defaults[name] or float(value) == defaults[name]
        if "enum" in field:
            assert control.locator("option").all_text_contents() == field["enum"]
        else:
            assert float(control.get_attribute("max") or "") == float(most.get(name, field["maximum"]))
            assert float(control.get_attribute("min") or "") == field.get("minimum", field.get("exclusiveMinimum"))


def test_a_setting_out_of_range_is_not_sent(page: Page, images: Path) -> None:
    choose(page, images / "000.png")
    finished(page, "1 of 1 captioned")
    sent = queries(page)
    for name, wrong in (("beam_size", "0"), ("n_best", "6"), ("max_length", "2.5")):
        page.locator("#settings").evaluate("(settings) => { settings.open = true; }")
        before = page.locator(f"#setting-{name}").input_value()
        page.fill(f"#setting-{name}", wrong)
        expect(page.locator(f"#{name}-problem")).not_to_be_empty()
        page.locator("#settings").evaluate("(settings) => { settings.open = false; }")
        page.get_by_role("button", name="Caption again").click()
        expect(page.locator(f"#setting-{name}")).to_be_focused()
        page.fill(f"#setting-{name}", before)
        expect(page.locator(f"#{name}-problem")).to_be_empty()
    assert sent == []


def test_an_unknown_word_in_the_beginning_is_said(page: Page, images: Path) -> None:
    choose(page, images / "000.png")
    finished(page, "1 of 1 captioned")
    page.fill("#beginning", "a zebra")
    page.keyboard.press("Enter")
    expect(page.locator(".picture .problem")).to_contain_text("zebra")
    assert caption(page).inner_text()


# --- out again


def test_captions_are_downloaded_as_csv(page: Page, images: Path, tmp_path: Path) -> None:
    names = ["=1+1.png", 'a "b", c.png', "+x.png", "plain.png", "@cmd.png", "-2.png"]
    for i, name in enumerate(names):
        shutil.copy(images / f"{i:03}.png", tmp_path / name)
    (tmp_path / "broken.png").write_text("no picture")
    page.click("#settings > summary")
    page.fill("#setting-n_best", "2")
    choose(page, *(tmp_path / name for name in names), tmp_path / "broken.png")
    finished(page, "6 of 7 captioned, 1 failed")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    text = download.value.path().read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert list(rows[0]) == ["path", "caption", "log_probability", "caption_2", "log_probability_2", "error"]
    assert [row["path"] for row in rows] == [
        "'=1+1.png",
        'a "b", c.png',
        "'+x.png",
        "plain.png",
        "'@cmd.png",
        "'-2.png",
        "broken.png",
    ]
    assert [row["caption"] for row in rows[:-1]] == [caption(page, n).inner_text() for n in range(6)]
    assert all(float(row["log_probability"]) < 0 and float(row["log_probability_2"]) < 0 for row in rows[:-1])
    assert rows[-1]["error"]


def test_captions_are_copied(browser: Browser, server: Served, images: Path) -> None:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        choose(page, images / "000.png", images / "001.png")
        finished(page, "2 of 2 captioned")
        first, second = (caption(page, n).inner_text() for n in (0, 1))
        page.get_by_label("Copy: 001.png").click()
        assert page.evaluate("navigator.clipboard.readText()") == second
        page.get_by_role("button", name="Copy", exact=True).click()
        assert page.evaluate("navigator.clipboard.readText()") == f"000.png\t{first}\n001.png\t{second}"


# --- how it is shown


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_is_accessible(look: str, browser: Browser, server: Served, images: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    with opened(browser, server.url, **LOOKS[look]) as page:
        expect(page.locator("#footer")).not_to_be_empty()
        assert axe_violations(page) == []
        page.click("#settings > summary")
        page.click("#settings-more > summary")
        page.fill("#setting-n_best", "3")
        choose(page, images / "000.png", tmp_path / "broken.png")
        finished(page, "1 of 2 captioned, 1 failed")
        page.fill("#setting-n_best", "0")
        page.check("#percents")
        assert axe_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("#take")
        expect(page.locator("#camera-take")).to_be_enabled()
        assert axe_violations(page) == []


def test_words_have_the_probability_of_their_tokens(page: Page) -> None:
    """In JavaScript as in Python: tests/report/test_words.py."""
    for written, expected in WORD_CASES.values():
        plain = {
            "text": written.text,
            "tokens": list(written.tokens),
            "token_log_probabilities": list(written.token_log_probabilities),
        }
        found = page.evaluate(
            "async (caption) => (await import('/page/words.js')).wordsOf(caption).map(([text, p]) => [text, p && Math.log(p)])",
            plain,
        )
        assert [text for text, _ in found] == [text for text, _ in expected]
        assert [value for _, value in found] == [value and pytest.approx(value) for _, value in expected]


def test_page_and_gallery_show_words_alike() -> None:
    package = ROOT / "src/img2seq"
    assert (package / "serving/page/words.css").read_bytes() == (package / "report/templates/words.css").read_bytes()
