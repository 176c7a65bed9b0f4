"""`img2seq caption --html`: one offline page of pictures and captions, written as they come.

Cards go to a file without a name, which vanishes with the process; only a finished page gets the name that was asked for. So memory does
not grow with the number of pictures, and what is there is whole.
"""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from img2seq.errors import DataError, shown
from img2seq.report.evaluation_page import page_template
from img2seq.report.gallery import small_picture
from img2seq.report.words import Caption, certainty, words_of
from img2seq.run.write import replacing

SIDE = 320  # of a thumbnail, in pixels
ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class About:
    """What the page says of how its captions were made.

    Attributes:
        run: its name.
        settings: of decoding, that are not the run's defaults.
        folder: that all pictures are in; names are shown without it.
        beginning: given, of every caption.
        n_given: its tokens, which say nothing of certainty.
    """

    run: str
    settings: Mapping[str, Any]
    folder: str = ""
    beginning: str = ""
    n_given: int = 0


class CaptionPage:
    """A page that pictures and captions are added to.

    Raises:
        DataError: where the file exists or cannot be written: before the captions are made.
    """

    def __init__(self, path: Path):
        self.path, self.about = path, About("", {})
        self._failures: list[str] = []
        self._n_captioned = 0
        self._card = page_template("caption_card.html")
        if path.suffix.lower() not in ENDINGS:
            raise DataError(f"--html: expected a name that ends in {' or '.join(ENDINGS)}; found {shown(str(path))}")
        if path.exists():
            raise DataError(f"{path}: exists already; choose another file")
        try:
            self._cards = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace", newline="", dir=path.parent)  # fmt: skip  # noqa: SIM115
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._cards:
            if kind is None:
                self._write()

    def thumbnail(self, data: bytes, name: str) -> bytes:
        """Return a small JPEG of an image file's bytes. Raises DataError if they are broken."""
        buffer = io.BytesIO()
        small_picture(data, name, SIDE).save(buffer, "JPEG", quality=72, optimize=True)
        return buffer.getvalue()

    def add(self, path: str, caption: Caption | None, *, thumbnail: bytes, failure: str) -> None:
        """Add a picture with its captions, or why there is none."""
        if caption is None:
            self._failures.append(failure)
            return
        captions = [
            {"words": words_of(one), "certainty": certainty(one, self.about.n_given)}
            for one in (caption, *caption.alternatives)
        ]
        picture = base64.b64encode(thumbnail).decode()
        name = path.removeprefix(self.about.folder).lstrip("/") if self.about.folder else path
        self._cards.write(self._card.render(name=name, place=self._n_captioned, captions=captions, picture=picture))
        self._n_captioned += 1

    def _write(self) -> None:
        about = asdict(self.about) | {"n_captioned": self._n_captioned, "failures": self._failures}
        head, foot = page_template("captions.html").render(about).split("<!-- cards -->\n")
        self._cards.seek(0)
        with replacing(self.path) as file:
            file.write(head)
            shutil.copyfileobj(self._cards, file)
            file.write(foot)
