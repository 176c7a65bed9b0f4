"""A model's decoder through ONNX Runtime: the captions of torch, in half of the time on a CPU."""

from __future__ import annotations

import torch

from img2seq.generation.model_step import ModelStep
from img2seq.generation.onnx_step import OnnxDecoder, OnnxStep
from img2seq.model.decoder import Decoder
from img2seq.model.onnx_session import OnnxSession


@torch.inference_mode()
def fast_decoder(decoder: Decoder, n_places: int) -> OnnxDecoder | None:
    """Return a decoder's graph, or None where it cannot be made or its logits would differ from torch's.

    Args:
        decoder: in evaluation mode; its weights are copied.
        n_places: of its memory.
    """
    memory, tokens = torch.randn(2, n_places, decoder.width), torch.arange(4) % len(decoder.bias)
    try:
        from img2seq.model.onnx_decoder import decoder_graph

        session = OnnxSession(decoder_graph(decoder, merged=False))
        found = OnnxDecoder.of(session, len(decoder.blocks), decoder.n_heads, decoder.width, decoder.n_positions - 1)
        slow, fast = ModelStep(decoder, memory), OnnxStep(found, decoder.memory_by_layer(memory), 2)
        for step in (slow, fast):
            step.begin(n_rows=2, group=2, max_tokens=2)
        expected, logits = slow.next_logits(tokens), torch.from_numpy(fast.next_logits(tokens.numpy()))
    except Exception:  # the runtime raises whatever it likes; torch can always do it
        return None
    return found if torch.allclose(logits, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())) else None
