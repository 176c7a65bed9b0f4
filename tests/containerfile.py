"""A Containerfile as data: its stages and instructions, for the test that reads it and the script that runs it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ROOT

CONTAINERFILE = ROOT / "Containerfile"  # with PyTorch, for runs
OF_EXPORTS = ROOT / "examples/serving/Containerfile"  # without


@dataclass
class Stage:
    """One stage: what it starts from, its name, and its instructions in order."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def lines(self, keyword: str) -> list[str]:
        """Return what stands behind each instruction of a kind."""
        return [rest for word, rest in self.instructions if word == keyword]

    def words(self, keyword: str) -> list[str]:
        """Return the words of an instruction that stands once, as a JSON list."""
        (rest,) = self.lines(keyword)
        words: list[str] = json.loads(rest)
        return words

    @property
    def healthcheck(self) -> list[str]:
        """Return the command of the health check."""
        (rest,) = self.lines("HEALTHCHECK")
        words: list[str] = json.loads(rest.partition(" CMD ")[2])
        return words

    @property
    def environment(self) -> dict[str, str]:
        """Return what ENV sets."""
        return dict(word.split("=", 1) for rest in self.lines("ENV") for word in rest.split())


def stages(path: Path = CONTAINERFILE) -> list[Stage]:
    """Return the stages of a Containerfile. It uses no more of the format than is read here."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    found: list[Stage] = []
    for line in text.splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if not keyword or keyword.startswith("#"):
            continue
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        else:
            assert re.fullmatch("RUN|COPY|ENV|USER|WORKDIR|EXPOSE|HEALTHCHECK|STOPSIGNAL|ENTRYPOINT|CMD", keyword), line
            found[-1].instructions.append((keyword, rest))
    return found
