"""What is imported is declared: a package that happens to come with another may be gone tomorrow."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from conftest import ROOT

FOLDERS = ("src", "tests", "benchmarks", "examples", "docs")
OF_OTHER_ENVIRONMENTS = {
    "benchmarks/timed",  # the peers' own
    "tests/fuzz_requests.py",  # by hand, with schemathesis
}
PARTS = {
    "pydantic_core": "pydantic",
    "starlette": "fastapi",
    "mlflow": "mlflow-skinny",
}  # which pin them, and hand on their names


def imported(path: Path) -> set[str]:
    """Return the first names of what a file imports, at its top or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not any(name.startswith(other) for other in OF_OTHER_ENVIRONMENTS) and "/." not in f"/{name}":
                yield path


def plain(name: str) -> str:
    """Return a distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for_users, for_developers = (
        {plain(re.split(r"[\[<>=!~ ;]", line)[0]) for line in lines}
        for lines in (
            [*project["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])],
            extras["dev"],
        )
    )
    ours = {path.stem for path in files()} | {path.name for path in ROOT.iterdir()} | {"img2seq"}
    ours |= {path.parent.name for path in files()}
    distributions, missing = packages_distributions(), set()
    for path in files():
        for name in imported(path) - set(sys.stdlib_module_names) - ours:
            known_as = PARTS.get(name, name)
            of = {plain(distribution) for distribution in distributions.get(known_as, [known_as])}
            if not of & (for_users if path.is_relative_to(ROOT / "src") else for_users | for_developers):
                missing.add(f"{path.relative_to(ROOT)}: {name}")
    assert not missing, sorted(missing)
