"""How a run's captions are searched for where nobody says otherwise, decoding.json: chosen by `img2seq evaluate --tune`, or written by a person.

    {"decoding": {"beam_size": 3, "length_penalty": 1.0}, "weights_sha256": "...", ...}

Any fields of `Decoding` may stand there but `n_best`, which a command decides. Settings that were chosen for a checkpoint name its weights: another
checkpoint does without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from img2seq.config.decoding import Decoding
from img2seq.errors import ConfigError, RunError, shown
from img2seq.run.checkpoint import Checkpoint
from img2seq.run.folder import RunFolder, read_json


def read_stored(run: RunFolder, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decoding.json says, nothing where there is none. Raises RunError unless its settings, over the defaults, are right."""
    if not run.decoding.exists():
        return {}
    content: dict[str, Any] = read_json(run.decoding)
    settings = content.get("decoding") if isinstance(content, dict) else content
    if not isinstance(settings, dict):
        raise RunError(f"{run.decoding}: decoding: expected settings by name; found {shown(settings)}")
    try:
        Decoding.check_defaults({**defaults, **settings})
    except ConfigError as error:
        raise RunError(f"{run.decoding}: {error}") from error
    return content


def stored_decoding(run: RunFolder, checkpoint: Checkpoint, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's settings, to be used over the defaults. Raises RunError for those that are wrong."""
    stored = read_stored(run, defaults)
    return dict(stored["decoding"]) if stored and is_of(stored, checkpoint) else {}


def is_of(stored: Mapping[str, Any], checkpoint: Checkpoint) -> bool:
    """Return whether what decoding.json says is for a checkpoint."""
    return stored.get("weights_sha256") in (None, weights_digest(checkpoint))


def weights_digest(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of a checkpoint's weights, as its manifest has it."""
    digest: str = read_json(checkpoint.path / "manifest.json")["files"][checkpoint.weights.name]["sha256"]
    return digest
