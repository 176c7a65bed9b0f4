"""What evaluations have found of one checkpoint: the scores that may stand on its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.errors import ConfigError, RunError
from img2seq.report.evaluation_page import METRIC_NAMES
from img2seq.run.folder import file_digest, read_json
from img2seq.run.results import MADE_FROM

SPLITS = {"valid split": "validation", "test split": "test", "train split": "train"}
# As `evaluate` and others call these metrics; BLEU's are told apart by their longest n-gram.
HUB_METRICS = {
    **{f"bleu_{n}": ("bleu", {"max_order": n}) for n in (1, 2, 3, 4)},
    "rouge_l": ("rouge", {}), "cider_d": ("cider", {}), "meteor": ("meteor", {}), "spice": ("spice", {}),
}  # fmt: skip
SHOWN = ("method", "beam_size", "length_penalty", "max_length")  # even where they are the defaults


@dataclass(frozen=True)
class Score:
    """A metric of a set of captions, with its 95 % interval by bootstrap over images."""

    key: str
    value: float
    low: float
    high: float

    @property
    def title(self) -> str:
        """Return what people call it."""
        return METRIC_NAMES[self.key]


@dataclass(frozen=True)
class Measured:
    """An evaluation of the checkpoint.

    Attributes:
        split: validation, test or train of the run's own data; None for other captions.
        images: that were captioned.
        scores: of their captions.
        perplexity: of the references.
        decoding: flags of `img2seq evaluate` that the captions were searched with.
        remarks: what the evaluation says of them: notes, an alarm, captions beside one constant sentence.
    """

    split: str | None
    images: int
    scores: tuple[Score, ...]
    perplexity: float | None
    decoding: str
    remarks: tuple[str, ...]


def evaluations_of(trained: TrainedRun) -> tuple[list[Measured], int]:
    """Return the evaluations of a checkpoint that stand in its run's folder, and how many there are of others.

    They are in RUN/evaluation, and wherever beside it `--output` wrote to a folder whose name begins so. Raises RunError for a file that is none.
    """
    manifest = file_digest(trained.checkpoint.path / "manifest.json")
    found, n_others = [], 0
    for path in sorted(trained.run.path.glob("evaluation*/metrics.json")):
        data = read_json(path)
        try:
            if data[MADE_FROM].get("checkpoint_sha256") == manifest:
                found.append(_measured(data))
            else:
                n_others += 1
        except (LookupError, TypeError, AttributeError, ValueError, ConfigError) as error:
            raise RunError(f"{path}: not what `img2seq evaluate` writes there: {error!r}") from error
    return found, n_others


def _measured(data: Mapping[str, Any]) -> Measured:
    intervals, constant = data["intervals_95"], data.get("most_frequent_caption")
    scores = [Score(key, float(data[key]), *map(float, intervals[key])) for key in METRIC_NAMES if key in data]
    remarks = [*data["notes"], data["diversity"]["alarm"], constant and constant["says"]]
    return Measured(
        split=SPLITS.get(data["data"]),
        images=int(data["images"]),
        scores=tuple(scores),
        perplexity=data.get("perplexity"),
        decoding=_flags(Decoding.of(data["decoding"])),
        remarks=tuple(str(remark) for remark in remarks if remark),
    )


def _flags(decoding: Decoding) -> str:
    usual = Decoding()
    names = [name for name in vars(usual) if getattr(decoding, name) != getattr(usual, name) or name in SHOWN]
    if decoding.method != "beam":
        names = [name for name in names if name not in ("beam_size", "beam_groups", "diversity", "length_penalty")]
    return " ".join(f"--{name.replace('_', '-')} {getattr(decoding, name)}" for name in names)
