"""Captions a second: our search, the same model without a cache, and Hugging Face `generate` on a decoder of equal size.

    python -m benchmarks.decoding           # needs: pip install transformers

All three write captions of exactly TOKENS tokens from the same random memory with random weights, in turn, REPEATS times;
medians are printed with their range. The uncached figure computes the whole caption again for every token, for as many rows
as there are beams, and leaves the bookkeeping of beams out: it is a lower bound of what that costs.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.figures import save
from img2seq.data.batch import pack
from img2seq.data.tokenizer import BOS, EOS
from img2seq.generation.search import search
from img2seq.generation.settings import Decoding
from img2seq.model.attention import PackedAttention
from img2seq.model.decoder import Decoder

VOCABULARY, WIDTH, LAYERS, HEADS, PLACES, TOKENS = 2550, 256, 3, 8, 49, 20
REPEATS = 5


def our_decoder() -> Decoder:
    """Return a random decoder of the size of examples/flickr8k."""
    torch.manual_seed(0)
    decoder = Decoder(
        vocabulary=VOCABULARY, width=WIDTH, n_layers=LAYERS, n_heads=HEADS, feedforward=4 * WIDTH, dropout=0.0,
        position_dropout=0.0, position="encode", n_positions=TOKENS + 2, has_memory=True,
    )  # fmt: skip
    return decoder.eval()


@torch.inference_mode()
def uncached(decoder: Decoder, memory: Tensor, n_rows: int) -> None:
    """Write TOKENS tokens of B x n_rows captions greedily, computing each caption from its beginning for every token."""
    B = len(memory)
    keys_values = decoder.memory_keys_values(memory)
    rows = torch.full((B * n_rows, 1), BOS)
    for _ in range(TOKENS):
        lines = [[(row, row, 0) for row in of_image] for of_image in rows.view(B, n_rows, -1).tolist()]
        batch = pack(tuple(map(str, range(B))), {}, lines)
        outputs = decoder(batch.input_ids, batch.positions, PackedAttention(batch, HEADS, keys_values))
        logits = decoder.logits(outputs.view(B * n_rows, -1, WIDTH)[:, -1])
        logits[:, EOS] = float("-inf")
        rows = torch.cat([rows, logits.argmax(1, keepdim=True)], 1)


def hugging_face() -> Callable[[Tensor, int], None]:
    """Return a function that writes captions by transformers' `generate`."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=64, add_cross_attention=True,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=3,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()

    @torch.inference_mode()
    def generate(memory: Tensor, n_beams: int) -> None:
        begin = torch.full((len(memory), 1), BOS)
        model.generate(
            begin, attention_mask=torch.ones_like(begin), encoder_hidden_states=memory, num_beams=n_beams,
            min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False,
        )  # fmt: skip

    return generate


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def main(line: list[str]) -> None:
    """Print the table and write it to benchmarks/results/decoding.json."""
    warnings.simplefilter("ignore")
    decoder = our_decoder()
    try:
        generate = hugging_face()
    except ImportError:
        generate = None
        print("Hugging Face is left out: pip install transformers")
    rows = []
    print(
        f"{'search':<8}{'images':>7}  {'ours':>12}  {'uncached':>12}  {'Hugging Face':>13}   captions/s, median of {REPEATS}; ratios to ours"
    )
    for n_beams in (1, 5):
        for B in (1, 64):
            memory = torch.randn(B, PLACES, WIDTH)
            method = "greedy" if n_beams == 1 else "beam"
            settings = Decoding(method=method, beam_size=n_beams, max_length=TOKENS, min_length=TOKENS)  # type: ignore[arg-type]
            ways: dict[str, Callable[[], object]] = {
                "ours": lambda m=memory, s=settings: search(decoder, m, s),  # type: ignore[misc]
                "uncached": lambda m=memory, n=n_beams: uncached(decoder, m, n),  # type: ignore[misc]
            }
            if generate is not None:
                ways["hugging_face"] = lambda m=memory, n=n_beams: generate(m, n)  # type: ignore[misc]
            for way in ways.values():
                way()
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(REPEATS):  # in turn, so that a slow spell of the machine meets all of them
                for name, way in ways.items():
                    times[name].append(seconds(way))
            speed = {name: B / statistics.median(values) for name, values in times.items()}
            ratio = {name: speed["ours"] / value for name, value in speed.items()}
            cells = [f"{speed['ours']:>12.1f}", *(f"{speed[n]:>6.1f} {ratio[n]:>4.1f}x" for n in list(ways)[1:])]
            print(f"{'greedy' if n_beams == 1 else 'beam 5':<8}{B:>7}  " + "  ".join(cells))
            ranges = {name: [B / max(values), B / min(values)] for name, values in times.items()}
            rows.append({"beams": n_beams, "images": B, "captions_per_s": speed, "range": ranges, "ours_over": ratio})
    save("decoding", {"tokens": TOKENS, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
