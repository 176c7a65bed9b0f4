"""`img2seq caption`: many files in bounded memory, resumable."""

from __future__ import annotations

import csv
import glob
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from img2seq.config.decoding import Decoding
from img2seq.data.csv_rows import decode_text, delimiter_hint, file_content, read_rows, row_problem
from img2seq.data.image import EXTENSIONS, Pixels, from_any
from img2seq.data.pixels import map_in_threads
from img2seq.data.records import image_id_of, images_below
from img2seq.data.text import clean_name, is_utf8
from img2seq.errors import DataError, listed, shown_all
from img2seq.inference.captioner import Captioner
from img2seq.inference.predictor import Caption
from img2seq.progress import Announcer

READERS = 2


@dataclass(frozen=True)
class Options:
    """What is written of each caption.

    Attributes:
        form: text, jsonl, csv or coco.
        with_path: text only: whether a line begins with the path and a tab.
        probabilities: jsonl and csv: whether log-probabilities are written, jsonl with those of the tokens.
        integer_ids: coco only: whether image ids of digits alone are written as numbers, as COCO's own are.
    """

    form: str = "text"
    with_path: bool = True
    probabilities: bool = False
    integer_ids: bool = False


def expand(paths: Iterable[str], standard_input: TextIO) -> Iterator[str]:
    """Yield image paths: of files, of folders with their subfolders, of patterns, of CSV files, of standard input ("-").

    Raises:
        DataError: for a path that leads to nothing.
    """
    for path in paths:
        if path == "-":
            yield from (line.rstrip("\n") for line in standard_input if line.strip())
        elif Path(path).is_dir():
            yield from map(str, images_below(path))
        elif path.lower().endswith(".csv"):
            yield from _paths_in_table(Path(path))
        elif Path(path).exists() or not glob.has_magic(path):
            yield path  # a file that is missing is reported as an image that failed
        elif found := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207  (pathlib knows no absolute patterns)
            yield from expand(found, standard_input)
        else:
            raise DataError(f"{path}: no file fits this pattern")


def _paths_in_table(path: Path) -> Iterator[str]:
    """Yield the column `path` of a CSV file, or its first column where it has no header; relative paths are relative to the file.

    Raises:
        DataError: before the first path, listing all rows that cannot be used: captioning may take hours.
    """
    rows = list(read_rows(path, decode_text(path, file_content(path))))
    header = [name.strip() for name in rows[0].values] if rows else []
    if "path" in header:
        column, rows = header.index("path"), rows[1:]
    elif header and Path(header[0]).suffix.lower() in EXTENSIONS:
        column = 0
    elif header:
        raise DataError(
            f"{path}:1: expected a column path, or paths of images alone, found {shown_all(header)}.{delimiter_hint(header)}"
        )
    problems = []
    for row in rows:
        problem = row_problem(row, len(header), column, ())
        if not problem and len(row.values) <= column:
            problem = f"line {row.line}: expected a path, found {len(row.values)} value(s): {shown_all(row.values)}"
        if not problem and not clean_name(row.values[column]):
            problem = f"line {row.line}: the path is empty"
        if problem:
            problems.append(problem)
    if problems:
        raise DataError(f"{path}: {len(problems)} row(s) cannot be used:\n{listed(problems)}")
    yield from (str(path.parent / row.values[column]) for row in rows)


def caption_files(
    captioner: Captioner,
    paths: Iterable[str],
    decoding: Decoding,
    options: Options,
    *,
    beginning: str = "",
    output: Path | None = None,
    resume: bool = False,
    announce: Announcer,
) -> tuple[int, int]:
    """Caption images into a file or onto standard output; return how many were captioned and how many failed.

    A broken image is reported, and in JSON Lines written down, and the rest go on.

    Args:
        captioner: the model.
        paths: as `expand` gives them; read as they are needed.
        decoding: how to search.
        options: what to write.
        beginning: of every caption.
        output: a file, or None for standard output.
        resume: continue an interrupted output file: what is in it is not captioned again.
        announce: for failures and progress.

    Raises:
        DataError: if the output exists and `resume` is not given, or the beginning has unknown words.
    """
    done: set[str] = set()
    if output is not None and output.exists():
        if not resume:
            raise DataError(f"{output}: exists already; continue with --resume, or choose another file")
        done = recover_partial_output(output, options)
    n_captioned = n_failed = 0
    file = sys.stdout if output is None else output.open("a", encoding="utf-8", errors="surrogateescape", newline="")
    try:
        if not done and (start := _start(options)):
            file.write(start)
        first = not done
        waiting = iter(path for path in paths if _key(path, options) not in done)
        with announce.bar("captioning", 0) as advance:
            while batch := list(islice(waiting, captioner.batch_size)):
                pixels, failures = _read(batch, captioner)
                good = [path for path in batch if path in pixels]
                captions = (
                    captioner.caption_pixels([pixels[p] for p in good], decoding, beginning=beginning, names=good)
                    if good
                    else []
                )
                of_path = dict(zip(good, captions, strict=True))
                for path in batch:
                    line = _line(path, of_path.get(path), failures.get(path, ""), options)
                    if line:
                        file.write(line if first or options.form != "coco" else ",\n" + line)
                        first = False
                for text in failures.values():
                    announce.say(f"failed: {text}", level="error")
                n_captioned, n_failed = n_captioned + len(good), n_failed + len(failures)
                file.flush()
                advance(len(batch))
        if options.form == "coco":
            file.write("\n]\n")
    finally:
        if output is not None:
            file.close()
    return n_captioned, n_failed


def _read(batch: Sequence[str], captioner: Captioner) -> tuple[dict[str, Pixels], dict[str, str]]:
    def read(path: str) -> Pixels | DataError:
        try:
            return from_any(path, captioner.spec)
        except DataError as error:
            return error
        except ValueError as error:  # a zero byte, or half a character: no file can have such a name
            return DataError(f"{path!a}: cannot be a path: {error}")

    pixels: dict[str, Pixels] = {}
    failures: dict[str, str] = {}
    for path, result in zip(batch, map_in_threads(read, batch, READERS), strict=True):
        if isinstance(result, DataError):
            failures[path] = str(result)
        else:
            pixels[path] = result
    return pixels, failures


# --- forms -----------------------------------------------------------------------------------------------


def _start(options: Options) -> str:
    columns = ["path", "caption", *(["log_probability"] if options.probabilities else [])]
    return {"csv": ",".join(columns) + "\n", "coco": "[\n"}.get(options.form, "")


def _line(path: str, caption: Caption | None, failure: str, options: Options) -> str:
    """Return what is written of one image, "" for nothing."""
    if caption is None:
        return _json({"path": path, "error": failure}) + "\n" if options.form == "jsonl" else ""
    if options.form == "text":
        return f"{path}\t{caption.text}\n" if options.with_path else f"{caption.text}\n"
    if options.form == "csv":
        row = [path, caption.text, *([f"{caption.log_probability:.6f}"] if options.probabilities else [])]
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(row)
        return buffer.getvalue()
    if options.form == "coco":
        image_id: str | int = image_id_of(Path(path).name)
        if options.integer_ids and str(image_id).isdecimal():
            image_id = int(image_id)
        return _json({"image_id": image_id, "caption": caption.text})
    return _json({"path": path, **_as_json(caption, options)}) + "\n"


def _json(data: dict[str, Any]) -> str:
    """Return JSON, which is always UTF-8: the bytes of a file name that are not are escaped, and Python reads them back."""
    text = json.dumps(data, ensure_ascii=False)
    return text if is_utf8(text) else json.dumps(data)


def _as_json(caption: Caption, options: Options) -> dict[str, Any]:
    data: dict[str, Any] = {"caption": caption.text}
    if options.probabilities:
        data |= {"log_probability": round(caption.log_probability, 6), "tokens": list(caption.tokens)}
        data["token_probabilities"] = [round(p, 6) for p in caption.token_probabilities]
    if caption.alternatives:
        data["alternatives"] = [_as_json(other, options) for other in caption.alternatives]
    return data


def _key(path: str, options: Options) -> str:
    """Return what names an image in the output."""
    return image_id_of(Path(path).name) if options.form == "coco" else path


def recover_partial_output(output: Path, options: Options) -> set[str]:
    """Cut an interrupted output file after its last complete entry, and return the keys of the images that are in it."""
    lines = output.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    try:
        if options.form == "coco":
            entries = [line.rstrip(",") for line in lines if line.startswith("{")]
            if entries and not entries[-1].endswith("}"):
                entries.pop()
            output.write_text("[\n" + ",\n".join(entries), encoding="utf-8")
            return {str(json.loads(entry)["image_id"]) for entry in entries}
        lines.pop()  # what follows the last line break was cut off, or is empty
        whole = "".join(f"{line}\n" for line in lines)
        output.write_text(whole, encoding="utf-8", errors="surrogateescape", newline="")
        if options.form == "csv":
            return {next(csv.reader([line]))[0] for line in lines[1:]}
        return {json.loads(line)["path"] if options.form == "jsonl" else line.partition("\t")[0] for line in lines}
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise DataError(
            f"{output}: cannot go on: it is not {options.form} that this command wrote ({error})"
        ) from error
