"""What a run began with, where that is another captioner, as its pretrained.json says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from img2seq.errors import shown_all


def describe_beginning(began_with: Mapping[str, Any]) -> str:
    """Return what the file says, in words."""
    new = began_with["new_words"]
    examples = f" ({shown_all(new, most=4)})" if new else ""
    return f"{began_with['run']}, step {began_with['step']:,}: {began_with['words']:,} tokens taken over, {len(new):,} new{examples}"
