"""What is written in a configuration before it is checked."""

from __future__ import annotations

from typing import Any


def written_at(data: Any, path: tuple[Any, ...]) -> Any:
    """Return what plain data has at a key path, None for nothing."""
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data
