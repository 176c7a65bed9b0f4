"""What the documents say holds: the generated page is current, and the commands they show parse."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from conftest import ROOT, SHARED
from img2seq.cli import main as cli

DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]


def test_the_configuration_page_is_that_of_the_schema() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs/configuration.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def commands() -> list[str]:
    """Return every `img2seq` command in the documents, continued lines joined."""
    found = []
    verbs = list(cli.VERBS)
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(rf"^\s*(img2seq (?:{'|'.join(verbs)}) [^\n#|]*)", text, re.MULTILINE)
    return [command for command in found if "..." not in command]


@pytest.mark.parametrize("command", commands())
def test_every_command_in_the_documents_parses(command: str) -> None:
    arguments = shlex.split(command)[1:]
    known, _ = cli.parse(arguments)
    where = f"{SHARED}/tutorial/conf" if (SHARED / "tutorial").is_dir() else "."
    for path in (
        p.replace("$C", where)
        for name in ("global", "input", "fusion", "output")
        for p in getattr(known, f"{name}_configs", [])
    ):
        assert "/" not in path or where == "." or (ROOT / path).is_file(), path


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_every_fault_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| \d+ \|.*", (ROOT / "docs/faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row.split(" | ")[-1])
        assert named, row
        assert [name for name in named if f"\ndef {name[1]}(" not in files.get(name[0], "")] == []
