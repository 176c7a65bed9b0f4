"""Captions of many images: parts of a batch are searched side by side, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence

from img2seq.config.decoding import Decoding
from img2seq.data.tokenizer import SpecialTokens
from img2seq.generation.search import Hypothesis, search
from img2seq.generation.step import Steps
from img2seq.model.onnx_session import in_parts

FEW_ROWS = 8  # fewer are not worth a thread of their own
MAX_ROWS = 8192  # captions built at a time: 8192 rows of logits over 10,000 words are 330 MB


def search_side_by_side(
    steps: Steps,
    settings: Decoding,
    special: SpecialTokens,
    *,
    names: Sequence[str],
    beginnings: Sequence[Sequence[int]] | None,
    threads: int,
) -> list[list[Hypothesis]]:
    """Return the captions of each image, best first: each thread searches for some of them at a time. See `search`."""

    def found(part: slice) -> list[list[Hypothesis]]:
        return search(steps(part), settings, special, beginnings=beginnings and beginnings[part], names=names[part])

    least, most = -(-FEW_ROWS // settings.n_rows), MAX_ROWS // threads // settings.n_rows  # images
    size = min(max(least, -(-len(names) // threads)), most)
    return [captions for part in in_parts(found, len(names), size, threads) for captions in part]
