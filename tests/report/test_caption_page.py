"""The page of `img2seq caption --html`: whole or not there, never over another file, in bounded memory, and as a person sees it in a browser."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

import children
from browser import LOOKS, Look, axe_violations, chromium
from conftest import img2seq
from img2seq.errors import DataError
from img2seq.report.caption_page import CaptionPage
from word_cases import written

pytest.importorskip("playwright", reason="needs playwright, which is not installed")
from playwright.sync_api import Browser, Page, expect

HOSTILE = 'a"><img src=x onerror=alert(1)>.png'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def made(run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with gallery.html and captions.jsonl of 12 pictures and 2 broken ones."""
    folder = tmp_path_factory.mktemp("gallery")
    photos = folder / "photos"
    (photos / "more").mkdir(parents=True)
    for i in range(11):
        shutil.copy(images / f"{i:03}.png", photos / ("more" if i > 8 else "") / f"{i}.png")
    shutil.copy(images / "011.png", photos / HOSTILE)
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "empty.png").write_bytes(b"")
    command = ("caption", run, photos, "--html", folder / "gallery.html", "--output", folder / "captions.jsonl")
    assert img2seq(*command, "--probabilities", "--n-best", "2", "--batch-size", "5") == 1
    return folder


def opened(browser: Browser, path: Path, look: Look = LOOKS["light"]) -> Page:
    page = browser.new_context(**look).new_page()
    page.goto(path.as_uri())
    return page


def names(page: Page) -> list[str]:
    return page.locator(".card:visible .name").all_text_contents()


def test_the_page_shows_what_the_output_says(browser: Browser, made: Path) -> None:
    rows = [json.loads(line) for line in (made / "captions.jsonl").read_text().splitlines()]
    captions = {row["path"].removeprefix(f"{made}/photos/"): row for row in rows if "error" not in row}
    requests: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: requests.append(request.url.partition(":")[0]))
    page.goto((made / "gallery.html").as_uri())
    assert sorted(names(page)) == sorted(captions)
    for card in page.locator(".card").all():
        row = captions[card.locator(".name").inner_text()]
        words = card.locator(".caption").first.locator(".word")
        assert words.all_text_contents() == row["caption"].split()
        percents = [float(word.get_attribute("data-percent") or "") for word in words.all()]
        assert percents == pytest.approx([100 * p for p in row["token_probabilities"][: len(percents)]], abs=0.51)
        assert card.locator("details .caption").all_text_contents() == [a["caption"] for a in row["alternatives"]]
        assert card.locator("img").evaluate("image => image.naturalWidth") == 40
    assert set(requests) - {"data"} == {"file"}
    failures = page.locator("#failures li").all_text_contents()
    assert [Path(line.partition(":")[0]).name for line in failures] == ["broken.png", "empty.png"]
    page.close()


def test_cards_are_sorted_and_found(browser: Browser, made: Path) -> None:
    page = opened(browser, made / "gallery.html")
    certainties = [float(card.get_attribute("data-certainty") or "") for card in page.locator(".card").all()]
    assert len(set(certainties)) > 1
    assert certainties == sorted(certainties)
    page.select_option("#order", "name")
    assert names(page)[:4] == ["0.png", "1.png", "2.png", "3.png"]
    assert names(page)[-3:] == [HOSTILE, "more/9.png", "more/10.png"]  # as people count
    page.fill("#find", "more/")
    assert names(page) == ["more/9.png", "more/10.png"]
    expect(page.locator("#count")).to_contain_text("2 of 12")
    page.context.close()


def test_words_are_read_with_the_keyboard(browser: Browser, made: Path) -> None:
    page = opened(browser, made / "gallery.html")
    words = page.locator(".card").first.locator(".caption").first.locator(".word")
    words.first.focus()
    page.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    expect(page.locator("#said")).to_have_text(
        f"{words.nth(1).inner_text()}: {words.nth(1).get_attribute('data-percent')} %"
    )
    page.keyboard.press("Tab")
    expect(page.locator(".card").first.locator("summary")).to_be_focused()  # one stop a caption
    page.context.close()


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_is_accessible(look: str, browser: Browser, made: Path) -> None:
    page = opened(browser, made / "gallery.html", LOOKS[look])
    for summary in page.locator("summary").all():
        summary.click()
    page.check("#percents")
    assert axe_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.context.close()


def test_on_paper_a_dark_page_is_light(browser: Browser, made: Path) -> None:
    page = opened(browser, made / "gallery.html", LOOKS["dark"])
    page.emulate_media(media="print")
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator(".bar")).to_be_hidden()
    assert len(page.pdf()) > 10_000
    page.context.close()


def test_the_page_alone_leaves_standard_output_empty(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = images / "000.png"
    assert img2seq("caption", run, picture, "--html", tmp_path / "a.html") == 0
    assert capsys.readouterr().out == ""
    assert img2seq("caption", run, picture, "--html", tmp_path / "b.HTM", "--output", "-") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "b.HTM"}


WRONG = {
    "there.html": ["there.html", "exists already"],
    "there.html --output x.csv": ["there.html", "exists already"],
    "x.html --output x.html --format csv": ["x.html", "exists already"],
    "x.csv": ["x.csv", ".html"],
    "missing/x.html": ["missing/x.html"],
    "x.html --resume": ["--resume", "--output"],
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_page_that_cannot_be_is_found_before_the_work(
    arguments: str, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("img2seq.inference.from_run.load_run", lambda *_, **__: pytest.fail("was loaded"))
    (tmp_path / "there.html").write_text("mine")
    assert img2seq("caption", run, images, "--html", *arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert [fact for fact in WRONG[arguments] if fact not in error] == []
    assert [path.name for path in tmp_path.iterdir()] == ["there.html"]
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_continued_output_comes_with_the_whole_page(run: Path, images: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "captions.csv", tmp_path / "gallery.html"
    assert img2seq("caption", run, images, "--output", output) == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    assert img2seq("caption", run, images, "--output", output, "--resume", "--html", page) == 0
    assert output.read_bytes() == whole
    captions = [row["caption"] for row in csv.DictReader(whole.decode().splitlines())]
    assert page.read_text().count("<article") == len(captions) == 32


def stop_itself(folder: Path, number: int) -> None:
    try:
        with CaptionPage(folder / "gallery.html") as page:
            page.add("a.png", written("a cat", ["a", "cat"]), thumbnail=b"", failure="")
            os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        sys.exit(130)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_page_that_is_interrupted_is_not_there(number: int, code: int, tmp_path: Path) -> None:
    assert children.run(stop_itself, tmp_path, number) == code
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    caption, thumbnail = written("a cat on a mat", ["a", "cat", "on", "a", "mat"]), bytes(10_000)
    with CaptionPage(tmp_path / "gallery.html") as page:
        page.add("first.png", caption, thumbnail=thumbnail, failure="")
        tracemalloc.start()
        for i in range(1500):
            page.add(f"{i}.png", caption, thumbnail=thumbnail, failure="")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "gallery.html").stat().st_size > 20_000_000
    assert peak < 2_000_000


def test_a_broken_picture_has_no_thumbnail(tmp_path: Path) -> None:
    with CaptionPage(tmp_path / "x.html") as page, pytest.raises(DataError, match="broken"):
        page.thumbnail(b"no picture", "broken.png")
