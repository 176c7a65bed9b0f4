"""The fuzz script finds nothing in a few hundred inputs, and does find a fault where one is planted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PLANTED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import fuzz
fuzz.USES["csv"] = ("csv", lambda path, data: data.decode("utf-8") and None)
if __name__ == "__main__":
    sys.exit(fuzz.main())
"""


def test_mutated_inputs_end_in_a_result_or_in_one_error() -> None:
    done = subprocess.run([sys.executable, ROOT / "tests/fuzz.py", "--count", "300"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("300 inputs from 0 (seed 0): 0 faults")


def test_an_error_of_another_kind_is_a_fault(tmp_path: Path) -> None:
    script = tmp_path / "planted.py"
    script.write_text(PLANTED)
    command = [sys.executable, str(script), str(ROOT / "tests"), "--count", "200"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "(csv): fault: UnicodeDecodeError" in done.stdout
