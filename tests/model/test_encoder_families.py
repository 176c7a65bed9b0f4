"""Encoders of several families, through training and captioning as users do: each works, or is refused by name in time.

All families are tried by `python tests/model/encoder_families.py`, which writes docs/encoders.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from encoder_families import try_encoder

WORK = [("test_vit", 32), ("test_byobnet", 32), ("test_nfnet", 32), ("test_convnext", 32)]
REFUSED = [
    ("coat_tiny", 64, "a list of 3"),
    ("crossvit_tiny_240", 240, "a list of 2"),
    ("efficientvim_m1", 64, "a list of 4"),
]


@pytest.mark.parametrize(("name", "size", "reason"), [*((*one, "") for one in WORK), *REFUSED])
def test_a_family_works_or_is_refused_by_name(
    name: str, size: int, reason: str, tmp_path: Path, speed_ups_on: None
) -> None:
    tried = try_encoder(tmp_path / "x", name, size)
    assert (bool(tried.refused), reason in tried.refused) == (bool(reason), True)
    assert (tried.places > 0) == (not reason)
