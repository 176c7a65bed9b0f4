"""Captions and tokenizers (rows 13, 24 and 25 of docs/faults.md): what cannot be used is named by its row."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2seq.build.trained import load_run
from img2seq.config.load import ConfigFiles
from img2seq.config.load import load as load_config
from img2seq.data.sources.read import read_captions
from img2seq.data.text import clean_caption
from img2seq.data.tokenizer import Tokenizer
from img2seq.data.vocabulary import from_vocab_file, learn_words
from img2seq.errors import DataError, RunError
from img2seq.report.comparison import read_runs
from img2seq.training.loop import train

SEPARATORS = "\n\r\t\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\u00a0\u3000\0\x7f"
TEXT = st.text(
    st.one_of(
        st.characters(),  # lone surrogates among them
        st.sampled_from(SEPARATORS),
        st.sampled_from("e\u0301\u00e9\u202e\u200f\u05d0\u0627\u0644\U0001f468\u200d\U0001f9b0\ufeff\ud83d\ude00"),
    ),
    max_size=60,
)


# --- row 13: nothing to predict


def test_a_table_of_empty_captions_stops_before_training(tiny: Path) -> None:
    lines = [f"{i:03}, \u00a0\u2028" for i in range(24)]
    (tiny / "captions.csv").write_text("\n".join(["ID,Sequence", *lines, ""]), encoding="utf-8")
    config = load_config(
        ConfigFiles(experiment=str(tiny / "experiment.yaml")), ["globals.basic_experiment.on_bad_data=skip"]
    )
    with pytest.raises(DataError, match=r"captions\.csv: expected captions, found none") as caught:
        train(config)
    assert "line 2: ID '000': the caption is empty" in str(caught.value)
    assert not (tiny / "run").exists()


# --- row 24: unicode, separators, control characters


def words(text: str) -> list[str]:
    """Return what can be seen of a text, cut at blanks and control characters."""
    shown = (
        c
        for c in text
        if unicodedata.category(c) != "Cf" and not re.match("[\u034f\ufe00-\ufe0f\U000e0000-\U000e0fff]", c)
    )
    spaced = (c if unicodedata.category(c) not in ("Cc", "Zl", "Zp", "Zs") else " " for c in shown)
    return unicodedata.normalize("NFC", "".join(spaced)).split()


@given(TEXT)
@settings(max_examples=300)
def test_a_cleaned_caption_is_one_line_of_composed_letters_and_stays_as_it_is(text: str) -> None:
    try:
        cleaned = clean_caption(text)
    except ValueError:
        assert any("\ud800" <= char <= "\udfff" for char in text)
        return
    assert clean_caption(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert len(cleaned.splitlines()) <= 1
    assert not any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in cleaned)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not set(cleaned) & set("\u00ad\u200b\u200f\u202e\u2060\ufeff")
    assert words(cleaned) == words(text)  # no word is lost


def test_separators_become_spaces_and_letters_are_composed() -> None:
    assert clean_caption("cafe\u0301") == clean_caption("caf\u00e9")
    assert clean_caption("a\u2028b\x85c\x0bd\ne") == "a b c d e"
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 at home"
    assert clean_caption(family) == family
    with pytest.raises(ValueError, match="lone surrogate"):
        clean_caption("a \ud800 dog")


@given(st.lists(TEXT.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)), min_size=1, max_size=5))
@settings(max_examples=150)
def test_a_table_gives_back_what_was_written_into_it(texts: list[str]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(
        [("ID", "Sequence"), ("first", "a caption"), *((f"{i}", t) for i, t in enumerate(texts))]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.csv"
        path.write_bytes(buffer.getvalue().encode())
        table = read_captions(path)
    cleaned = {str(i): clean_caption(text).strip() for i, text in enumerate(texts)}
    assert table.captions == {"first": ["a caption"]} | {i: [text] for i, text in cleaned.items() if text}
    empty = [i for i, text in cleaned.items() if not text]
    assert [f"ID {i!r}: the caption is empty" in line for i, line in zip(empty, table.problems, strict=True)] == [
        True
    ] * len(empty)


@given(st.binary(max_size=300))
@settings(max_examples=150)
def test_any_bytes_are_a_table_or_one_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.csv"
        path.write_bytes(b"ID,Sequence\n" + content)
        try:
            table = read_captions(path)
        except DataError as error:
            assert str(error).startswith(str(path))
        else:
            assert all(
                text and text == clean_caption(text).strip() for texts in table.captions.values() for text in texts
            )


# --- row 25: another tokenizer, other preprocessing


@pytest.fixture
def copied_run(finished_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a run without digests, as the first versions wrote it or as somebody else would sign it."""
    run = Path(shutil.copytree(finished_runs[1], tmp_path / "run", symlinks=True))
    (run / "digests.json").unlink()
    return run


def swap_two_words(run: Path) -> None:
    data = json.loads((run / "tokenizer.json").read_text())
    data["tokens"][-2:] = reversed(data["tokens"][-2:])
    (run / "tokenizer.json").write_text(json.dumps(data))


def change_one_word(run: Path) -> None:
    text = (run / "tokenizer.json").read_text()
    assert '"ball"' in text
    (run / "tokenizer.json").write_text(text.replace('"ball"', '"bell"'))


def lowercase(run: Path) -> None:
    text = (run / "tokenizer.json").read_text()
    (run / "tokenizer.json").write_text(text.replace('"lowercase": false', '"lowercase": true'))


@pytest.mark.parametrize("change", [swap_two_words, change_one_word, lowercase])
def test_a_tokenizer_that_is_not_that_of_training_is_refused(change: object, copied_run: Path) -> None:
    load_run(copied_run)
    change(copied_run)  # type: ignore[operator]
    with pytest.raises(RunError, match=r"tokenizer\.json: not the tokenizer this run was trained with"):
        load_run(copied_run)


def test_a_tokenizer_that_is_not_utf8_is_one_error(copied_run: Path) -> None:
    path = copied_run / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"ball", b"b\xe4ll"))
    with pytest.raises(RunError, match=r"tokenizer\.json: expected UTF-8 text"):
        load_run(copied_run)


def test_a_table_of_a_run_that_is_not_utf8_is_one_error(copied_run: Path) -> None:
    path = copied_run / "validation/images.csv"
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(RunError, match=r"images\.csv: not a table of a run"):
        read_runs([copied_run])


@pytest.mark.parametrize(
    ("old", "new"), [("resize_approach: resize", "resize_approach: centercrop"), ("- 32\n", "- 64\n")]
)
def test_images_that_would_become_other_pixels_are_refused(old: str, new: str, copied_run: Path) -> None:
    text = (copied_run / "config.yaml").read_text()
    assert text.count(old) == 1
    (copied_run / "config.yaml").write_text(text.replace(old, new))
    with pytest.raises(RunError, match="other pixels than in training"):
        load_run(copied_run)


@pytest.mark.parametrize("token", ["\\ud800", "\\udfff x"])
def test_a_vocabulary_of_what_is_no_text_is_refused(token: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(f'{{"dog": 5, "{token}": 6}}')
    with pytest.raises(DataError, match=r"vocab\.json: .*valid Unicode"):
        from_vocab_file(tmp_path / "vocab.json", split_on=" ", lowercase=False)


@given(st.lists(TEXT, min_size=1, max_size=4))
@settings(max_examples=100)
def test_a_tokenizer_of_any_captions_survives_its_file(texts: list[str]) -> None:
    captions = [text for text in texts if not any("\ud800" <= c <= "\udfff" for c in text)]
    for split_on in (" ", ""):
        try:
            tokenizer = learn_words(captions, split_on=split_on, min_freq=1)
        except DataError:
            continue  # nothing but spaces
        again = Tokenizer.from_json(tokenizer.to_json().encode("utf-8").decode("utf-8"))
        assert again.digest == tokenizer.digest
        assert [again.encode(text) for text in captions] == [tokenizer.encode(text) for text in captions]
