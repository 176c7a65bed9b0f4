"""The fuzz script finds nothing in a few hundred inputs, and does find a fault where one is planted."""

from __future__ import annotations

import sys
from pathlib import Path

import children
import fuzz


def read_as_utf8(path: Path, data: bytes) -> None:
    data.decode("utf-8")


def fuzz_with(count: str, planted: bool) -> None:
    """Be the script, which may have a fault."""
    if planted:
        fuzz.USES["csv"] = ("csv", read_as_utf8)
    sys.argv = ["fuzz.py", "--count", count]
    sys.exit(fuzz.main())


def test_mutated_inputs_end_in_a_result_or_in_one_error() -> None:
    done = children.finished(fuzz_with, "300", False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(b"300 inputs from 0 (seed 0): 0 faults")


def test_an_error_of_another_kind_is_a_fault() -> None:
    done = children.finished(fuzz_with, "200", True)
    assert done.returncode == 1
    assert b"(csv): fault: UnicodeDecodeError" in done.stdout
