"""Which images are held out for validation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from img2seq.data.seeds import seed_of
from img2seq.errors import DataError, did_you_mean, listed


def random_split(image_ids: Iterable[str], valid_size: float | int, seed: int) -> tuple[list[str], list[str]]:
    """Return (train, valid) ids, each sorted. An image's place in the draw depends on its id and the seed alone.

    Raises:
        DataError: if no image would be left on one side.
    """
    ids = sorted(image_ids)
    count = valid_size if isinstance(valid_size, int) else max(1, round(valid_size * len(ids)))
    if not 1 <= count < len(ids):
        raise DataError(
            f"valid_size: expected to leave images on both sides, found {count} of {len(ids)} images for validation"
        )
    drawn = set(sorted(ids, key=lambda image_id: seed_of("split", seed, image_id))[:count])
    return [i for i in ids if i not in drawn], [i for i in ids if i in drawn]


def manual_split(image_ids: Iterable[str], valid_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (train, valid) ids, each sorted, with exactly `valid_ids` held out.

    Raises:
        DataError: listing the ids that no caption has, or if no image is left to train on.
    """
    ids, valid = set(image_ids), set(valid_ids)
    if unknown := sorted(valid - ids):
        near = did_you_mean(unknown[0], ids) if len(ids) < 50_000 else ""
        raise DataError(
            f"manual_valid_ids_file: {len(unknown)} of {len(valid)} IDs have no image with a caption:\n{listed(unknown)}{near}"
        )
    if not valid or valid == ids:
        raise DataError(
            f"manual_valid_ids_file: expected to leave images on both sides, found {len(valid)} of {len(ids)} for validation"
        )
    return sorted(ids - valid), sorted(valid)


def read_ids(path: str | Path) -> list[str]:
    """Read one ID a line; empty lines are skipped. Raises DataError if the file cannot be read."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text: {error.reason}") from error
    return [line.strip() for line in lines if line.strip()]
