"""Whether captions are better than one sentence said of every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from img2seq.errors import shown
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.most_frequent import cider_by_image
from img2seq.progress import counted
from img2seq.report.comparison import Interval, bootstrap


@dataclass(frozen=True)
class AgainstConstant:
    """CIDEr-D of captions beside that of the most frequent training caption, said of every picture.

    Attributes:
        caption: that is said of every picture.
        cider_d: of it.
        gain: of the captions over it.
        ci95: of the gain, by bootstrap over images.
        images: that both are scored on.
    """

    caption: str
    cider_d: float
    gain: float
    ci95: Interval
    images: int

    @property
    def sentence(self) -> str:
        """Return what it means."""
        low, high = self.ci95
        verdict = (
            "captions beat the most frequent training caption" if low > 0
            else "captions beat the most frequent training caption, but that may be chance" if self.gain > 0
            else "captions do not beat the most frequent training caption"
        )  # fmt: skip
        return (
            f"{verdict}: CIDEr-D {self.cider_d + self.gain:.3f} against {self.cider_d:.3f} for always {shown(self.caption)} "
            f"(95 % interval of the difference {low:.3f} to {high:.3f}, {counted(self.images, 'image')})"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, with the sentence."""
        return asdict(self) | {"ci95": list(self.ci95), "says": self.sentence}


def against_constant(
    scores: Mapping[str, float],
    references: Mapping[str, Sequence[str]],
    caption: str,
    frequency: DocumentFrequency | None = None,
) -> AgainstConstant | None:
    """Return how much better captions are than one caption; None where CIDEr-D tells nothing: of one image, without a caption.

    Args:
        scores: CIDEr-D of the captions, by image.
        references: by image.
        caption: said of every picture.
        frequency: that the scores were computed with.
    """
    if len(scores) < 2 or not caption:
        return None
    constant = cider_by_image(dict.fromkeys(scores, caption), references, frequency)
    theirs = np.array(list(constant.values()))
    gain, interval = bootstrap(np.array([scores[i] for i in constant]) - theirs, np.ones(len(theirs)))
    return AgainstConstant(caption, float(theirs.mean()), gain, interval, len(theirs))
