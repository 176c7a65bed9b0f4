"""The scenes as a data set on disk, in the layout that `img2seq train` reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from img2seq.demo.drawing import draw
from img2seq.demo.scenes import Scene, scene
from img2seq.demo.wording import captions
from img2seq.errors import DataError

# Raise this when pictures or captions change, so that folders written before are written anew.
GENERATOR = 1


def write_dataset(folder: Path, *, n_train: int, n_valid: int, seed: int, size: int = 128) -> None:
    """Write pictures, captions and the list of validation ids; at once if an equal call has finished before.

    Layout: `images/scene_00000.jpg`, `captions.csv` (ID,Sequence; five rows an image), `valid_ids.txt` (one
    ID a line) and, last of all, `complete.json` with the arguments. No two scenes have the same content, so
    every validation scene is a combination that training never showed.

    Raises:
        DataError: a number is too small to make a data set.
    """
    if n_train < 1 or n_valid < 1 or size < 16:
        raise DataError(
            "write_dataset: expected n_train >= 1, n_valid >= 1 and size >= 16,"
            f" found n_train={n_train}, n_valid={n_valid}, size={size}."
        )
    wanted = {"generator": GENERATOR, "n_train": n_train, "n_valid": n_valid, "seed": seed, "size": size}
    marker = folder / "complete.json"
    if marker.is_file() and marker.read_text(encoding="utf-8") == json.dumps(wanted):
        return
    marker.unlink(missing_ok=True)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for stale in images.glob("scene_*.jpg"):
        stale.unlink()
    valid_ids: list[str] = []
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("ID", "Sequence"))
        for number, one in enumerate(chosen_scenes(seed, n_train, n_valid)):
            image_id = f"scene_{number:05d}"
            draw(one, size).save(images / f"{image_id}.jpg", quality=92, subsampling=0)
            rows.writerows((image_id, caption) for caption in captions(one))
            if one.is_validation:
                valid_ids.append(image_id)
    (folder / "valid_ids.txt").write_text("".join(f"{image_id}\n" for image_id in valid_ids), encoding="utf-8")
    marker.write_text(json.dumps(wanted), encoding="utf-8")


def chosen_scenes(seed: int, n_train: int, n_valid: int) -> Iterator[Scene]:
    """Yield scenes of distinct content, in the order of their index, until both sides are full."""
    missing = {False: n_train, True: n_valid}
    seen: set[str] = set()
    for index in count():
        one = scene(seed, index)
        if missing[one.is_validation] and one.content not in seen:
            seen.add(one.content)
            missing[one.is_validation] -= 1
            yield one
        if not any(missing.values()):
            return
