"""Read the CSV files of a run: tables, and histories that may end in half a line."""

from __future__ import annotations

import csv
from pathlib import Path

from img2seq.errors import RunError


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of a run. Raises RunError if it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path}: not a table of a run: {error}") from error


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a history, none where there is no file: it grows line by line, and a kill can leave half of one.

    Raises:
        RunError: if it cannot be read, or a row has no step.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        for row in rows:
            int(row["iteration"])
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: not the history of a run: {error!r}") from error
    return rows
