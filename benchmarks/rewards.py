"""Time the reward of self-critical training: 30,000 samples of 6,000 images with 5 references, all at once and a step's at a time.

    python -m benchmarks rewards [--samples 30000] [--captions ../shared/data/flickr8k/captions_all.csv]

A sample is the first half of one caption and the second of another image's. Beside the time stands the largest difference from
`metrics.cider.cider_d`, over the first samples. Writes benchmarks/results/rewards.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.figures import save
from benchmarks.metrics import REFERENCES, ROOT, build_corpus, fastest, timed
from img2seq.metrics import ptb_tokenize
from img2seq.metrics.cider import DocumentFrequency, cider_d
from img2seq.metrics.ngrams import count_corpus
from img2seq.metrics.reward import END, CaptionReward

SAMPLES_OF_IMAGE = 5
STEP = 160  # samples
COMPARED = 2000


def main(line: list[str]) -> None:
    """Time the reward, print the figures and write the JSON file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, default=30_000)
    options.add_argument("--captions", type=Path, default=ROOT.parent / "shared/data/flickr8k/captions_all.csv")
    arguments = options.parse_args(line)
    results, by_id = build_corpus(arguments.captions, arguments.samples // SAMPLES_OF_IMAGE)
    references, others = list(by_id.values()), list(results.values())
    images = np.repeat(np.arange(len(references)), SAMPLES_OF_IMAGE)
    texts = [
        _half(of_image[k % REFERENCES], others[(place * SAMPLES_OF_IMAGE + k) % len(others)])
        for place, of_image in enumerate(references)
        for k in range(SAMPLES_OF_IMAGE)
    ]
    ended = [place % 7 > 0 for place in range(len(texts))]
    preparing, reward = timed(lambda: CaptionReward(references))
    at_once, found = fastest(lambda: reward.of(images, texts, ended))
    begun = time.process_time()
    reward.of(images, texts, ended)
    of_processor = time.process_time() - begun

    def by_steps() -> None:
        for i in range(0, len(texts), STEP):
            reward.of(images[i : i + STEP], texts[i : i + STEP], ended[i : i + STEP])

    in_steps, _ = fastest(by_steps)
    figures = {
        "samples": len(texts),
        "references_per_image": REFERENCES,
        "seconds_preparing_references": round(preparing, 3),
        "seconds_at_once": round(at_once, 3),
        "seconds_of_the_processor_at_once": round(of_processor, 3),
        f"seconds_in_steps_of_{STEP}": round(in_steps, 3),
        "largest_difference_from_cider_d": float(
            np.abs(found[:COMPARED] - _plain(references, images, texts, ended)).max()
        ),
    }
    for name, value in figures.items():
        print(f"{name:<40}{value}")
    save("rewards", figures)


def _half(one: str, other: str) -> str:
    begin, end = one.split(), other.split()
    return " ".join([*begin[: len(begin) // 2], *end[len(end) // 2 :]])


def _plain(references: list[list[str]], images: np.ndarray, texts: list[str], ended: list[bool]) -> np.ndarray:
    """Return what `img2seq evaluate` would give the first samples, with the end among the words."""
    truths = [[[*ptb_tokenize(text), END] for text in of_image] for of_image in references]
    samples = [[*ptb_tokenize(t), *([END] if e else [])] for t, e in zip(texts[:COMPARED], ended, strict=False)]
    of_samples = [truths[image] for image in images[:COMPARED]]
    return cider_d(count_corpus(samples, of_samples), DocumentFrequency.from_references(truths))
