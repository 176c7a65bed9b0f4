"""Caption a picture from an export, with ONNX Runtime, tokenizers, Pillow and numpy alone.

python caption.py EXPORT photo.jpg
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps
from tokenizers import Tokenizer


def caption(folder: Path, photo: str) -> str:
    """Return the caption of a picture, the most probable token at a time."""
    config, generation, how = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("config", "generation_config", "preprocessor_config")
    )
    encoder = InferenceSession(folder / "onnx/encoder_model.onnx")
    decoder = InferenceSession(folder / "onnx/decoder_model_merged.onnx")

    image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    image = image.resize((how["size"]["width"], how["size"]["height"]), Image.Resampling(how["resample"]))
    if "crop_size" in how:
        width, height = how["crop_size"]["width"], how["crop_size"]["height"]
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, dtype=np.float32) * how["rescale_factor"]
    pixels = (pixels - np.float32(how["image_mean"])) / np.float32(how["image_std"])
    (states,) = encoder.run(None, {"pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32)})

    tokens, heads = [config["decoder_start_token_id"]], config["decoder"]["n_head"]
    empty = np.zeros((1, heads, 0, config["decoder"]["n_embd"] // heads), dtype=np.float32)
    names = [f"{layer}.{kind}" for layer in range(config["decoder"]["n_layer"]) for kind in ("key", "value")]
    past = {f"past_key_values.{name}": empty for name in names}
    while tokens[-1] != config["eos_token_id"] and len(tokens) < generation["max_length"]:
        feeds = {"input_ids": np.array([tokens[-1:]]), "encoder_hidden_states": states, **past}
        logits, *kept = decoder.run(["logits", *(f"present.{name}" for name in names)], feeds)
        logits[0, -1, generation["suppress_tokens"]] = -np.inf
        tokens.append(int(logits[0, -1].argmax()))
        past = dict(zip(past, kept, strict=True))
    text: str = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(tokens)
    return text


if __name__ == "__main__":
    print(caption(Path(sys.argv[1]), sys.argv[2]))
