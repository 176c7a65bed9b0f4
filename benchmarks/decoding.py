"""Captions a second: our search through ONNX Runtime and in torch, the same model without a cache, Hugging Face `generate` on a decoder of equal size.

    python -m benchmarks decoding

All write captions of exactly TOKENS tokens from random memory with random weights, in turn, REPEATS times, Hugging
Face in a process and environment of its own; medians are printed with their range. The uncached figure computes the whole caption again for every token, for as many rows
as there are beams, and leaves the bookkeeping of beams out: it is a lower bound of what that costs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from benchmarks.figures import save
from benchmarks.peers import HUGGING_FACE, Session, interpreter
from img2seq.config.decoding import Decoding
from img2seq.data.batch import collate
from img2seq.data.tokenizer import BOS, EOS, SPECIAL_TOKENS, Tokenizer
from img2seq.generation.fast_decoder import fast_decoder
from img2seq.generation.model_step import ModelStep
from img2seq.generation.onnx_step import OnnxDecoder, onnx_steps
from img2seq.generation.search import search
from img2seq.generation.side_by_side import search_side_by_side
from img2seq.model.attention import PackedAttention
from img2seq.model.decoder import Decoder
from img2seq.model.packing import pack

VOCABULARY, WIDTH, LAYERS, HEADS, PLACES, TOKENS = 2550, 256, 3, 8, 49, 20
REPEATS = 5
SPECIAL = Tokenizer(SPECIAL_TOKENS, split_on=" ").special


def our_decoder() -> Decoder:
    """Return a random decoder of the size of examples/flickr8k."""
    torch.manual_seed(0)
    decoder = Decoder(
        vocabulary=VOCABULARY, width=WIDTH, n_layers=LAYERS, n_heads=HEADS, feedforward=4 * WIDTH, dropout=0.0,
        position_dropout=0.0, position="encode", n_positions=TOKENS + 2, has_memory=True,
    )  # fmt: skip
    decoder.lay_out_for_decoding()  # as `Captioner` does
    return decoder.eval()


@torch.inference_mode()
def through_runtime(decoder: Decoder, runtime: OnnxDecoder, memory: Tensor, settings: Decoding) -> None:
    """Caption as a prepared run does on a CPU."""
    names = [str(n) for n in range(len(memory))]
    by_layer, threads = decoder.memory_by_layer(memory), torch.get_num_threads()
    steps = onnx_steps(runtime, by_layer)
    search_side_by_side(steps, settings, SPECIAL, names=names, beginnings=None, threads=threads)


@torch.inference_mode()
def uncached(decoder: Decoder, memory: Tensor, n_rows: int) -> None:
    """Write TOKENS tokens of B x n_rows captions greedily, computing each caption from its beginning for every token."""
    B = len(memory)
    keys_values = decoder.memory_keys_values(memory)
    rows = torch.full((B * n_rows, 1), BOS)
    for _ in range(TOKENS):
        lines = [[(row, row, 0) for row in of_image] for of_image in rows.view(B, n_rows, -1).tolist()]
        batch = pack(collate(tuple(map(str, range(B))), lines))
        outputs = decoder(batch.input_ids, batch.positions, PackedAttention(batch, HEADS, keys_values))
        logits = decoder.logits(outputs.view(B * n_rows, -1, WIDTH)[:, -1])
        logits[:, EOS] = float("-inf")
        rows = torch.cat([rows, logits.argmax(1, keepdim=True)], 1)


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begun


def peer_seconds(peer: Session, size: dict[str, int]) -> float:
    """Return how long Hugging Face's `generate` takes, as its own process measures it."""
    return float(peer.ask(**size)["seconds"])


def main(line: list[str]) -> None:
    """Print the table and write it to benchmarks/results/decoding.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks decoding", description=__doc__)
    options.add_argument("--repeats", type=int, default=REPEATS)
    repeats = options.parse_args(line).repeats
    decoder = our_decoder()
    runtime = fast_decoder(decoder, PLACES)
    assert runtime is not None, "the benchmark needs img2seq[fast]"
    rows = []
    with closing(Session("hugging_face_generate", interpreter(HUGGING_FACE))) as peer:
        version = peer.ask(vocabulary=VOCABULARY, width=WIDTH, layers=LAYERS, heads=HEADS)["version"]
        print(
            f"{'search':<8}{'images':>7}  {'ours':>12}  {'torch':>12}  {'uncached':>12}  {'Hugging Face':>13}   "
            f"captions/s, median of {repeats}; ratios to ours; transformers {version}"
        )
        for n_beams, B in itertools.product((1, 5), (1, 64)):
            memory = torch.randn(B, PLACES, WIDTH)
            method: Literal["greedy", "beam"] = "greedy" if n_beams == 1 else "beam"
            settings = Decoding(method=method, beam_size=n_beams, max_length=TOKENS, min_length=TOKENS)
            size = {"images": B, "places": PLACES, "width": WIDTH, "tokens": TOKENS, "beams": n_beams}
            ways: dict[str, Callable[[], float]] = {
                "ours": partial(seconds, through_runtime, decoder, runtime, memory, settings),
                "torch": partial(seconds, search, ModelStep(decoder, memory), settings, SPECIAL),
                "uncached": partial(seconds, uncached, decoder, memory, n_beams),
                "hugging_face": partial(peer_seconds, peer, size),
            }
            for way in ways.values():
                way()
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(repeats):  # in turn, so that a slow spell of the machine meets all of them
                for name, way in ways.items():
                    times[name].append(way())
            speed = {name: B / statistics.median(values) for name, values in times.items()}
            ratio = {name: speed["ours"] / value for name, value in speed.items()}
            cells = [f"{speed['ours']:>12.1f}", *(f"{speed[n]:>6.1f} {ratio[n]:>4.1f}x" for n in list(ways)[1:])]
            print(f"{'greedy' if n_beams == 1 else 'beam 5':<8}{B:>7}  " + "  ".join(cells), flush=True)
            ranges = {name: [B / max(values), B / min(values)] for name, values in times.items()}
            rows.append({"beams": n_beams, "images": B, "captions_per_s": speed, "range": ranges, "ours_over": ratio})
    save("decoding", {"tokens": TOKENS, "transformers": version, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
