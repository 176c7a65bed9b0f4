"""ROUGE-L, as pycocoevalcap 1.2 computes it.

Lin (2004), https://aclanthology.org/W04-1013/: an F-measure of the longest common subsequence (LCS). With several
references pycocoevalcap takes the best precision and the best recall, which may come from different references:

    P = max LCS / candidate length,  R = max LCS / reference length
    F = (1 + b^2) P R / (R + b^2 P),  b = 1.2

The corpus score is the mean over images. An empty caption scores 0, also where a reference is empty too
(pycocoevalcap gives that pair 1).
"""

from __future__ import annotations

from collections.abc import Sequence

_BETA_SQUARED = 1.2**2


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return ROUGE-L of one caption against its references, between 0 and 1."""
    if not candidate:
        return 0.0
    places = _places(candidate)
    precision = recall = 0.0
    for reference in references:
        common = _common_subsequence(places, len(candidate), reference)
        precision = max(precision, common / len(candidate))
        recall = max(recall, common / max(1, len(reference)))
    if precision == 0.0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def _places(tokens: Sequence[str]) -> dict[str, int]:
    """Return, for each distinct token, an integer whose bit i is set where the token is at place i."""
    places: dict[str, int] = {}
    for place, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << place
    return places


def _common_subsequence(places: dict[str, int], length: int, other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, a whole row of the table at a time.

    Bit i of `row` is 0 where the table's row rises between columns i and i + 1: Hyyro (2004), "Bit-parallel LCS-length
    computation revisited".
    """
    everywhere = (1 << length) - 1
    row = everywhere
    for token in other:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & everywhere
    return length - row.bit_count()
