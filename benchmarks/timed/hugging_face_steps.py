"""Training steps of transformers' VisionEncoderDecoderModel. Runs in Hugging Face's environment; answers JSON lines.

The first line describes the model and names the file of batches that our side wrote; each of the others asks for steps, which
are answered with their seconds and losses. What is done is what transformers' Trainer does on a CPU by default: padded to the
longest caption of the batch, an image for every caption, fused AdamW, gradients clipped to a norm of 1.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

import numpy as np
import torch
import transformers
from transformers.modeling_outputs import BaseModelOutput

BOS, PAD, EOS = 0, 3, 4  # as in our vocabularies
IGNORED = -100


class ResNetSequence(transformers.ResNetModel):  # type: ignore[misc]
    """ResNet whose feature map is a sequence of places, as VisionEncoderDecoderModel expects of its encoder."""

    main_input_name = "pixel_values"

    def forward(self, pixel_values: Any, **_options: Any) -> BaseModelOutput:
        """Return (B, P, C) features."""
        feature_map = self.encoder(self.embedder(pixel_values)).last_hidden_state
        return BaseModelOutput(last_hidden_state=feature_map.flatten(2).transpose(1, 2))


def encoder(name: str, pixels: int) -> Any:
    """Return a random encoder of the shape of timm's of this name."""
    if name == "resnet18":
        config = transformers.ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
        )
        config.hidden_size = 512
        return ResNetSequence(config)
    if name == "vit_small_patch16_224":
        config = transformers.ViTConfig(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, image_size=pixels
        )
        return transformers.ViTModel(config, add_pooling_layer=False)
    raise ValueError(name)


def build(name: str, pixels: int, vocabulary: int, width: int, layers: int, heads: int) -> Any:
    """Return the whole model in training mode. Attention weights have no dropout, as ours have none."""
    torch.manual_seed(0)
    decoder = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=heads, n_positions=64, add_cross_attention=True,
            bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, attn_pdrop=0.0, is_decoder=True,
        )
    )  # fmt: skip
    model = transformers.VisionEncoderDecoderModel(encoder=encoder(name, pixels), decoder=decoder)
    model.config.decoder_start_token_id, model.config.pad_token_id = BOS, PAD
    return model.train()


def batches(file: str) -> list[dict[str, torch.Tensor]]:
    """Return the batches of our side, normalised and with an image for every caption."""
    arrays = np.load(file)
    found = []
    for i in range(len(arrays.files) // 3):
        pixels, captions, image = (torch.from_numpy(arrays[f"{name}_{i}"]) for name in ("pixels", "captions", "image"))
        images = ((pixels.float() / 255 - 0.5) / 0.5).contiguous()
        found.append({"pixel_values": images[image], "labels": captions})
    return found


def main() -> None:
    """Answer until standard input ends."""
    request = json.loads(sys.stdin.readline())
    file, lr = request.pop("batches"), request.pop("lr")
    model = build(**request)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({"version": transformers.__version__, "parameters": parameters}), flush=True)
    ahead = itertools.cycle(batches(file))
    for line in sys.stdin:
        seconds, losses = [], []
        for _ in range(json.loads(line)["steps"]):
            batch = next(ahead)
            begun = time.perf_counter()
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            seconds.append(time.perf_counter() - begun)
        print(json.dumps({"seconds": seconds, "losses": losses}), flush=True)


if __name__ == "__main__":
    main()
