"""`img2seq evaluate RUN --tune`: choose how a run searches, on its validation split, and store it as the run's defaults.

Beams and length penalties are tried together: more beams find shorter captions, which a penalty makes up for. Each pair is searched for anew, since
a search ends the earlier the less a longer caption could still gain. Then n-gram blocks are tried with the best pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

from img2seq.config.decoding import Decoding
from img2seq.data.caption_set import CaptionSet
from img2seq.errors import RunError
from img2seq.evaluation.evaluate_run import scored_data
from img2seq.evaluation.scored import EvaluationData
from img2seq.inference.captioner import Captioner
from img2seq.inference.from_run import longest_trained
from img2seq.metrics.repeated import RepeatedScore
from img2seq.progress import Announcer
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.results import check_writable
from img2seq.run.stored_decoding import weights_digest
from img2seq.run.write import write_json

BEAM_SIZES = (3, 5, 8)  # and one, whose captions hardly depend on a penalty
LENGTH_PENALTIES = (0.0, 0.5, 0.7, 1.0, 1.3)
NGRAM_BLOCKS = (0, 2, 3)
CHOSEN_BY = "cider_d"


@dataclass(frozen=True)
class Way:
    """How to search: the settings that are chosen here."""

    beam_size: int = Decoding().beam_size
    length_penalty: float = Decoding().length_penalty
    no_repeat_ngram: int = Decoding().no_repeat_ngram


@dataclass(frozen=True)
class Tried(Way):
    """A way and what its captions score: `distinct` is the share of them that differ, for a score may be bought with it."""

    cider_d: float = 0.0
    bleu_4: float = 0.0
    distinct: float = 0.0

    @property
    def way(self) -> Way:
        """Return the settings alone."""
        return Way(self.beam_size, self.length_penalty, self.no_repeat_ngram)


@dataclass(frozen=True)
class Tuned:
    """What was tried, in that order, and what was chosen."""

    decoding: Decoding
    tried: list[Tried]
    run: RunFolder

    def __str__(self) -> str:
        best, usual = chosen(self.tried), next(one for one in self.tried if one.way == Way())
        rows = [
            f"{one.beam_size:>5}{one.length_penalty:>16}{one.no_repeat_ngram:>14}"
            f"{one.cider_d:>9.4f}{one.bleu_4:>8.4f}{one.distinct:>10.1%}{' *' if one is best else ''}"
            for one in self.tried
        ]
        gain = (
            "these are the defaults"
            if best is usual
            else f"{best.cider_d - usual.cider_d:+.4f} over the defaults ({_words(usual.way)})"
        )
        return "\n".join(
            [
                "beams  length penalty  n-gram block  CIDEr-D  BLEU-4  distinct",
                *rows,
                f"chosen: {_words(best.way)}: CIDEr-D {best.cider_d:.4f}, {gain}; stored in {self.run.decoding}",
            ]
        )


def check_tunable(captioner: Captioner, *, overwrite: bool) -> None:
    """Raise RunError for an export, which has no split, and where decoding.json cannot be written or was not written here (unless `overwrite`).

    It was written here if it holds the settings that its own table leads to.
    """
    trained = captioner.loaded.trained
    if trained is None or not trained.run.split.is_file():
        raise RunError(
            f"{captioner.loaded.path}: is an export, which holds no split to tune on; tune the run that it was made from, and export that again"
        )
    run = trained.run
    check_writable(run.path)
    if overwrite or not run.decoding.exists():
        return
    try:
        content = read_json(run.decoding)
        is_own = content["decoding"] == asdict(chosen([Tried(**row) for row in content["tried"]]).way)
    except (LookupError, TypeError, ValueError):
        is_own = False
    if not is_own:
        raise RunError(f"{run.decoding}: has settings that were not chosen by --tune; replace them with --overwrite")


def tune(captioner: Captioner, *, announce: Announcer) -> Tuned:
    """Caption the validation split in many ways, and store the one with the highest CIDEr-D in decoding.json.

    Args:
        captioner: of the run.
        announce: for progress.

    Raises:
        DataError: for captions and images that do not fit, listing all.
    """
    trained = captioner.trained
    data = scored_data(captioner, EvaluationData(), announce).data
    defaults = longest_trained(trained)
    score = RepeatedScore(dict(zip(data.image_ids, data.captions, strict=True)))
    pairs = [Way(1), *(Way(*pair) for pair in product(BEAM_SIZES, LENGTH_PENALTIES))]
    with announce.bar(
        "choosing", len(data.image_ids) * (len(pairs) + len(NGRAM_BLOCKS) - 1), unit="captions"
    ) as advance:

        def tried(ways: Sequence[Way]) -> list[Tried]:
            decodings = [Decoding.of({**defaults, **asdict(way)}) for way in ways]
            captions = _captions(captioner, data, decodings, advance)
            return [Tried(**{**asdict(way), **score.of(texts)}) for way, texts in zip(ways, captions, strict=True)]

        found = tried(pairs)
        pair = chosen(found)
        found += tried([Way(pair.beam_size, pair.length_penalty, block) for block in NGRAM_BLOCKS if block])
    settings = asdict(chosen(found).way)
    write_json(
        trained.run.decoding,
        {
            "decoding": settings,
            "chosen_by": CHOSEN_BY,
            "data": "valid split",
            "images": len(data.image_ids),
            "step": trained.checkpoint.step,
            "weights_sha256": weights_digest(trained.checkpoint),
            "tried": [asdict(one) for one in found],
        },
    )
    return Tuned(Decoding.of({**defaults, **settings}), found, trained.run)


def chosen(tried: Sequence[Tried]) -> Tried:
    """Return the one with the highest CIDEr-D; of equal ones that with the fewest beams, then what is nearest to the defaults."""
    usual = Way()
    return max(
        tried,
        key=lambda one: (
            one.cider_d,
            -one.beam_size,
            one.length_penalty == usual.length_penalty,
            one.no_repeat_ngram == usual.no_repeat_ngram,
        ),
    )


def _captions(
    captioner: Captioner, data: CaptionSet, decodings: Sequence[Decoding], advance: Callable[[int], None]
) -> list[dict[str, str]]:
    """Return captions by image id, of each way to search. An image is encoded once for all of them."""
    captioner.prepare_for_many()
    captions: list[dict[str, str]] = [{} for _ in decodings]
    for start in range(0, len(data.image_ids), captioner.batch_size):
        part = data.image_ids[start : start + captioner.batch_size]
        pixels, features = data.read_images(range(start, start + len(part)))
        steps = captioner.loaded.model.steps(pixels=pixels, features=features, n_images=len(part))
        for decoding, texts in zip(decodings, captions, strict=True):
            written = captioner.predictor.search(steps, decoding, names=part, beginnings=None)
            texts |= {image_id: caption.text for image_id, caption in zip(part, written, strict=True)}
            advance(len(part))
    return captions


def _words(way: Way) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(way).items())
