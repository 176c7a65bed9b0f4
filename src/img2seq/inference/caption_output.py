"""The output of `img2seq caption`: its forms, and how an interrupted file is continued.

A file is a start, rows, and an end; each image has a row. To continue, whole rows are read and never written again, so that nothing is
lost whenever the process ends. What follows the last whole row must be the beginning of what comes next: any other file is refused and
left as it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from img2seq.data.records import image_id_of
from img2seq.data.text import is_utf8
from img2seq.errors import DataError, shown
from img2seq.inference.predictor import Caption

Key = str | int  # what names an image in a file: its path, in COCO results its image_id
_NO_CAPTION = Caption("", 0.0, (), ())


@dataclass(frozen=True)
class Layout:
    """What is written of each image.

    Attributes:
        form: text, jsonl, csv or coco; none writes nothing.
        with_path: text only: whether a line begins with the path and a tab.
        probabilities: jsonl and csv: whether log-probabilities are written, jsonl with those of the tokens.
        integer_ids: coco only: whether image ids of digits alone are written as numbers, as COCO's own are.
        n_captions: of an image, best first; coco holds one.
        own_ids: coco only: whether a list of pictures has ids of its own, numbers or text.
    """

    form: str = "text"
    with_path: bool = True
    probabilities: bool = False
    integer_ids: bool = False
    n_captions: int = 1
    own_ids: bool = False

    @property
    def columns(self) -> list[str]:
        """Return the names of the values in a row of csv, or in a line of text."""
        of_caption = ["caption", "log_probability"] if self.probabilities else ["caption"]
        return [
            "path",
            *(f"{name}_{n}" if n > 1 else name for n in range(1, self.n_captions + 1) for name in of_caption),
        ]

    @property
    def start(self) -> str:
        """Return what a file begins with."""
        return {"csv": f"{','.join(self.columns)}\n", "coco": "[\n"}.get(self.form, "")

    @property
    def separator(self) -> str:
        """Return what stands between two rows."""
        return ",\n" if self.form == "coco" else ""

    @property
    def end(self) -> str:
        """Return what a file ends with."""
        return "\n]\n" if self.form == "coco" else ""

    def key(self, path: str) -> Key:
        """Return what names an image in the file."""
        if self.form != "coco":
            return path
        own: Key | None = getattr(path, "own_id", None)  # of a list that has ids of its own
        if own is not None:
            return int(own) if self.integer_ids and isinstance(own, str) and own.isdecimal() else own
        image_id = image_id_of(Path(path).name)
        return int(image_id) if self.integer_ids and image_id.isdecimal() else image_id

    def unwritable(self, path: str) -> str:
        """Return why a path has no place in this form, "" if it has."""
        if self.form == "text" and self.with_path and re.search(r"[\t\r\n]", path):
            return f"{path!a}: text has no place for a tab or a line break in a path; write csv, jsonl or coco"
        return ""

    def row(self, path: str, caption: Caption | None, failure: str) -> str:
        """Return what is written of one image, "" for nothing."""
        if self.form == "none":
            return ""
        if caption is None:
            return _json({"path": path, "error": failure}) + "\n" if self.form == "jsonl" else ""
        if self.form == "coco":
            return _json({"image_id": self.key(path), "caption": caption.text})
        if self.form == "jsonl":
            return _json({"path": path, **self._as_json(caption)}) + "\n"
        values = [path]
        for one in (caption, *caption.alternatives)[: self.n_captions]:
            values += [one.text, *([repr(one.log_probability)] if self.probabilities else [])]
        values += [""] * (len(self.columns) - len(values))  # a search may find fewer captions than were asked for
        if self.form == "csv":
            return _csv_row(values)
        captions = [re.sub(r"[\t\r\n]", " ", text) for text in values[1:]]  # a vocabulary file may hold anything
        return "\t".join([path, *captions]) + "\n" if self.with_path else "\n".join(captions) + "\n"

    def _as_json(self, caption: Caption, *, is_best: bool = True) -> dict[str, Any]:
        data: dict[str, Any] = {"caption": caption.text}
        if self.probabilities:
            data |= {"log_probability": caption.log_probability, "tokens": list(caption.tokens)}
            data["token_probabilities"] = list(caption.token_probabilities)
        if is_best and self.n_captions > 1:
            data["alternatives"] = [self._as_json(other, is_best=False) for other in caption.alternatives]
        return data

    # --- reading what was written

    @property
    def row_in_words(self) -> str:
        """Return what `read_row` expects."""
        if self.form in ("text", "csv"):
            return f"{' and '.join(self.columns)}, separated by {'a tab' if self.form == 'text' else 'commas'}"
        ids = "numbers" if self.integer_ids else "text"
        return f"one line of JSON with {', '.join(self._keys)}" + (
            f" (ids of digits as {ids})" if self.separator else ""
        )

    @property
    def _keys(self) -> list[str]:
        return ["image_id", "caption"] if self.form == "coco" else ["path", *self._as_json(_NO_CAPTION)]

    def read_row(self, row: str) -> tuple[Key, bool]:
        """Return the key of a row, and whether it holds captions or says why there is none.

        Raises:
            ValueError, TypeError, RecursionError, csv.Error: if this layout does not write such a row.
        """
        if self.form == "text":
            values, again = row.removesuffix("\n").split("\t"), row
        elif self.form == "csv":
            (values,) = csv.reader(io.StringIO(row, newline=""), strict=True)
            again = _csv_row(values)
        else:
            data = json.loads(row)
            names, is_error = list(data), self.form == "jsonl" and list(data) == ["path", "error"]
            if _json(data) != row.removesuffix("\n") or not (is_error or names == self._keys):
                raise ValueError
            key = data[names[0]]
            is_number = self.form == "coco" and (self.integer_ids or self.own_ids) and str(key).isdecimal()
            if not isinstance(key, (int, str) if self.own_ids else int if is_number else str) or isinstance(key, bool):
                raise ValueError
            return key, not is_error
        if len(values) != len(self.columns) or again != row or not values[0]:
            raise ValueError
        return values[0], True


def _json(data: dict[str, Any]) -> str:
    """Return JSON, which is always UTF-8: the bytes of a file name that are not are escaped, and Python reads them back."""
    text = json.dumps(data, ensure_ascii=False)
    return text if is_utf8(text) else json.dumps(data)


def _csv_row(values: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(
        values
    )  # the writer quotes those line breaks only that it writes
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _whole_rows(file: BinaryIO, *, may_be_quoted: bool) -> Iterator[bytes]:
    """Yield the lines of a file, as far as they are whole; in CSV a quoted value may go over several."""
    lines: list[bytes] = []
    is_open = False
    for line in file:
        lines.append(line)
        is_open ^= may_be_quoted and line.count(b'"') % 2 == 1
        if line.endswith(b"\n") and not is_open:
            yield b"".join(lines)
            lines.clear()


class CaptionOutput:
    """Standard output, or a file that is begun or continued.

    Attributes:
        kept: how many rows of each image, by key, the file holds already.
        n_failed: how many of them say why there is no caption.
    """

    def __init__(self, path: Path | None, layout: Layout, *, resume: bool = False):
        """Open the file, which shows before any work whether it can be written.

        Raises:
            DataError: if it exists and `resume` is not given, or this layout does not write such a file.
        """
        self.path, self.layout = path, layout
        self.kept: Counter[Key] = Counter()
        self.n_failed = 0
        self._before = layout.start  # what stands between what is there and the next row
        self._rest = b""  # of a file to continue: what follows its last whole row
        self._file: BinaryIO | None = None
        if path is None:
            return
        if path.is_dir():
            raise DataError(f"{path}: expected a file to write, found a folder")
        self._is_new = not path.exists()
        if not (self._is_new or resume):
            raise DataError(f"{path}: exists already; continue with --resume, or choose another file")
        self._file = path.open("x+b" if self._is_new else "r+b")
        try:
            self._read_rows(self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.path is not None and self._file is not None:
            self._file.close()
            if kind is not None and self._is_new and self.path.stat().st_size == 0:  # as if it had never been opened
                self.path.unlink()

    def write(self, row: str) -> None:
        """Write a row. Raises DataError if the file to continue ends in the beginning of another row."""
        self._append(self._before + row, then=self.layout.separator)
        self._before = self.layout.separator

    def finish(self) -> None:
        """Write what a file ends with. Raises DataError if the file to continue ends in the beginning of a row."""
        start = "" if self._before == self.layout.separator else self._before
        self._append(start + self.layout.end)
        self.flush()

    def flush(self) -> None:
        """Hand over what was written: a process that is killed later has written it."""
        (self._file or sys.stdout).flush()

    def _append(self, text: str, *, then: str = "") -> None:
        if self._file is None:
            sys.stdout.write(text)
            return
        data = text.encode("utf-8", "surrogateescape")
        if self._rest != data:
            if not any(
                expected.startswith(self._rest) for expected in (data + then.encode(), self.layout.end.encode())
            ):
                raise self._not_ours("end", f"the beginning of {shown(text)}", self._rest)
            self._file.seek(-len(self._rest), io.SEEK_END)
            self._file.truncate()
            self._file.write(data)
        self._rest = b""

    def _read_rows(self, file: BinaryIO) -> None:
        """Count the whole rows. Raises DataError if this layout does not write such a file."""
        start = self.layout.start.encode()
        head = file.read(len(start))
        if not start.startswith(head):
            raise self._not_ours("line 1", shown(self.layout.start), head)
        place = end = len(start) if head == start else 0
        line = 1 + start.count(b"\n")
        if head == start:
            self._before = ""
        for data in _whole_rows(file, may_be_quoted=self.layout.form == "csv"):
            row = data.decode("utf-8", "surrogateescape")
            if self.layout.separator:
                row = row.removesuffix("\n").removesuffix(",")
                if not row:  # the end of results without a caption
                    break
            try:
                key, has_caption = self.layout.read_row(row)
            except (ValueError, TypeError, RecursionError, csv.Error) as error:
                raise self._not_ours(f"line {line}", self.layout.row_in_words, data) from error
            self.kept[key] += 1
            self.n_failed += not has_caption
            self._before = self.layout.separator
            end = place + len(row.encode("utf-8", "surrogateescape"))
            place, line = place + len(data), line + data.count(b"\n")
            if not data.endswith(self.layout.separator.encode()):
                break
        file.seek(end)
        self._rest = file.read()

    def _not_ours(self, place: str, expected: str, found: bytes) -> DataError:
        return DataError(
            f"{self.path}: cannot go on: {place}: expected {expected}, found {shown(found.decode('utf-8', 'replace'))}. "
            "The file is left as it is"
        )
