"""Real servers for tests: `img2seq serve` in a child, on a free port of this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx2

from children import child, img2seq, wait_until


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        url: where it answers.
        process: of it.
        log: what it wrote to standard error.
    """

    url: str
    process: ForkServerProcess
    log: Path

    def post(self, path: str, **options: object) -> httpx2.Response:
        """Send a request."""
        return httpx2.post(f"{self.url}{path}", timeout=60, trust_env=False, **options)  # type: ignore[arg-type]

    def get(self, path: str, **options: object) -> httpx2.Response:
        """Send a request."""
        return httpx2.get(f"{self.url}{path}", timeout=60, trust_env=False, **options)  # type: ignore[arg-type]


@contextmanager
def serving(
    folder: Path, *arguments: object, plant: Callable[[], None] | None = None, until: str = "ready after"
) -> Iterator[Served]:
    """Run `img2seq serve` with these arguments until the block ends; `plant` may first break something in the server's process."""
    log = folder / f"serve-{len(list(folder.glob('serve-*.log')))}.log"
    with child(img2seq, ["serve", *arguments, "--port", 0, "--device", "cpu"], plant, log=log) as process:
        wait_until(lambda: log.exists() and until in log.read_text(encoding="utf-8"), process)
        found = re.search(r"listening at (http://\S+)", log.read_text(encoding="utf-8"))
        assert found
        yield Served(found[1], process, log)
