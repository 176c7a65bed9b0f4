"""What is found may be a whole file, or nothing but one value of a megabyte: an error shows a line of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import minimal_config
from img2seq.cli import main as cli
from img2seq.config.decoding import Decoding
from img2seq.config.load import load_config
from img2seq.data.records import find_images
from img2seq.data.sources.read import read_captions
from img2seq.data.split import read_ids
from img2seq.data.tokenizer import Tokenizer
from img2seq.data.vocabulary import from_vocab_file
from img2seq.errors import MOST_IN_LINE, MOST_LINES, DataError, Img2SeqError
from img2seq.inference.caption_paths import expand
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.formats import read_pair, read_references, read_results
from img2seq.run.folder import RunFolder, open_run, read_json, read_tokenizer
from img2seq.run.tables import read_history, read_table

MOST = 1300  # characters of a message about one value: a headline and a line about what was found
MOST_OF_ROWS = 2600  # of one that lists ten rows, and of a hundred tokens
HUGE: dict[str, Any] = {
    "text": "x" * 200_000,
    "words": "a dog " * 5000,
    "a list": [["y" * 5000] * 20] * 20,
    "an object": {f"key {i}": "z" * 500 for i in range(2000)},
    "digits": 10**4000,
    "lines": "a\nb" * 5000,
}


def with_each_part_replaced(content: Any, huge: Any) -> Iterator[Any]:
    """Yield the content with each of its values, and each of its keys, replaced by the huge one."""
    yield huge
    if isinstance(content, dict):
        for key, value in content.items():
            yield from ({**content, key: other} for other in with_each_part_replaced(value, huge))
            if isinstance(huge, str):
                yield {huge if k == key else k: v for k, v in content.items()}
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from ([*content[:i], other, *content[i + 1 :]] for other in with_each_part_replaced(value, huge))


COCO = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
RESULTS = [{"image_id": 1, "caption": "a dog"}]
FREQUENCY = {"format": "img2seq document frequency 1", "images": 2, "ngrams": {"a dog": 1}}
JSON: list[tuple[Any, list[Callable[[Path], object]]]] = [
    (COCO, [read_captions, read_references]),
    ({"1": ["a dog", "a cat"]}, [read_captions, read_references]),
    (RESULTS, [read_results]),
    ({"1": "a dog"}, [read_results]),
    (FREQUENCY, [DocumentFrequency.load]),
    ({"a": 5, "dog": 6}, [lambda path: from_vocab_file(path, split_on=" ", lowercase=False)]),
]


def said_of(call: Callable[[], object]) -> str:
    """Return the message of the error, "" where there is none."""
    try:
        call()
    except Img2SeqError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("huge", HUGE)
def test_json_with_one_huge_part_is_a_short_error(huge: str, tmp_path: Path) -> None:
    path, n_refused = tmp_path / "file.json", 0
    for content, readers in JSON:
        for changed in with_each_part_replaced(content, HUGE[huge]):
            path.write_text(json.dumps(changed))
            for reader in readers:
                said = said_of(lambda reader=reader: reader(path))  # type: ignore[misc]
                assert len(said) <= (MOST if len(said.splitlines()) < 10 else MOST_OF_ROWS), said[:3000]
                n_refused += bool(said)
    assert n_refused > 15


@pytest.mark.parametrize("huge", HUGE)
def test_a_configuration_with_one_huge_part_is_a_short_error(huge: str, tmp_path: Path) -> None:
    path, n_refused = tmp_path / "file.yaml", 0
    for changed in with_each_part_replaced(minimal_config(), HUGE[huge]):
        path.write_text(json.dumps(changed))  # JSON is YAML
        said = said_of(lambda: load_config(path))
        assert max(map(len, said.split("\n"))) <= MOST_IN_LINE
        assert len(said) <= (MOST if huge != "an object" else MOST_IN_LINE * (MOST_LINES + 1)), said[:2000]
        n_refused += bool(said)
    assert n_refused > 10
    path.write_text(yaml.safe_dump(minimal_config()))
    text = str(HUGE[huge]) if huge != "digits" else "9" * 4000
    for override in (
        f"outputs.captions.{text}=1",
        f"{text}=1",
        f"globals.optimization.lr={text}",
        f"inputs.{text}.x=1",
        text,
    ):
        assert 0 < len(said_of(lambda override=override: load_config(path, override))) <= MOST  # type: ignore[misc]


@pytest.mark.parametrize("huge", ["text", "words", "lines"])
def test_tables_and_lists_with_one_huge_value_are_a_short_error(huge: str, tmp_path: Path) -> None:
    path, value = tmp_path / "file.csv", HUGE[huge]
    quoted = '"' + value + '"'
    readers: list[Callable[[], object]] = [
        lambda: read_references(path), lambda: list(expand([str(path)], io.StringIO(), warn=print)),
        lambda: [row["x"] for row in read_table(path)], lambda: read_history(path), lambda: Tokenizer.from_json(path.read_text(), "t"),
    ]  # fmt: skip
    for text in (value, f"ID,Sequence\n{value},a\n", f"ID,Sequence\n1,{quoted}\n", f"ID,{quoted}\n1,a\n", f"path,{quoted}\n{quoted},a\n", f"iteration\n{value}\n"):  # fmt: skip
        path.write_text(text)
        for reader in readers:
            try:
                said = said_of(reader)
            except KeyError:
                continue
            assert len(said) <= MOST, said[:2000]
    path.write_text(f"{value}\n")
    assert len(said_of(lambda: read_ids(str(path)))) <= MOST


def test_ids_of_a_megabyte_do_not_fit_in_a_short_error(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({HUGE["text"]: "a dog", "1": "a cat"}))
    (tmp_path / "references.json").write_text(json.dumps({HUGE["text"] + "y": ["a dog"], "1": ["a cat"]}))
    said = said_of(lambda: read_pair(tmp_path / "results.json", tmp_path / "references.json"))
    assert 0 < len(said) <= 2 * MOST  # two lists, and a guess


@pytest.mark.parametrize("name", ["config.yaml", "facts.json", "tokenizer.json", "split.json", "digests.json"])
def test_a_run_with_one_huge_file_is_a_short_error(
    name: str, finished_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for huge in ("text", "an object"):
        for file in finished_runs[0].iterdir():
            if file.suffix in (".yaml", ".json", ".csv") and file.name != "digests.json":
                (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / name).write_text(json.dumps({"format": HUGE[huge], "facts": HUGE[huge], "train": HUGE[huge]}))
        for verb, codes in (("runs show", {0, 2}), ("evaluate", {2})):
            assert cli.run([*verb.split(), str(tmp_path)]) in codes
            assert len(capsys.readouterr().err) <= MOST + 20
    assert said_of(lambda: read_tokenizer(open_run(tmp_path))) == "" or name in ("tokenizer.json", "config.yaml")
    assert read_json(RunFolder(tmp_path).split)


@pytest.mark.parametrize(
    "arguments",
    [
        ["HUGE"], ["caption", "HUGE", "x"], ["caption", "--HUGE"], ["compare", "HUGE"], ["train", "HUGE"], ["train", "x", "--HUGE=1"],
        ["train", "x.yaml", "--globals.HUGE"], ["evaluate", "x", "--temperature", "HUGE"], ["evaluate", "x", "--split", "HUGE"],
        ["data", "check", "HUGE"], ["data", "check", "x", "--workers", "HUGE"], ["caption", "r", "p", "--device", "HUGE"],
        ["caption", "r", "p", "--method", "HUGE"], ["train", "x", "--max_time", "HUGE"], ["runs", "show", "HUGE"],
        ["evaluate", "--results", "HUGE", "--references", "x", "--output", "y"], ["compare", "x", "--output", "HUGE"],
    ],
    ids=lambda arguments: " ".join(arguments),
)  # fmt: skip
def test_a_huge_word_on_the_command_line_is_a_short_error(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run([argument.replace("HUGE", "h" * 100_000) for argument in arguments]) == 2
    assert len(capsys.readouterr().err) <= MOST_IN_LINE + 20


def test_python_is_told_as_shortly(tmp_path: Path) -> None:
    for name in ("temperature", "t" * 100_000):
        assert 0 < len(said_of(lambda name=name: Decoding.of({name: "v" * 100_000}))) <= MOST  # type: ignore[misc]
    assert 0 < len(said_of(lambda: find_images(tmp_path / ("f" * 200) / ("g" * 200) / ("h" * 200)))) <= MOST


def test_a_message_keeps_its_ends_and_its_first_lines() -> None:
    said = str(DataError(f"captions.csv:3: expected a number, found {'9' * 10_000}. Did you mean '9'?"))
    assert len(said) <= MOST_IN_LINE
    assert said.startswith("captions.csv:3: expected a number")
    assert said.endswith("Did you mean '9'?")
    said = str(DataError("\n".join(map(str, range(1000)))))
    assert said.splitlines()[:MOST_LINES] == [str(n) for n in range(MOST_LINES)]
    assert said.splitlines()[MOST_LINES:] == [f"... and {1000 - MOST_LINES} more lines"]
