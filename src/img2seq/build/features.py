"""Features of a frozen encoder, computed once for each image and kept on disk."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from img2seq.data.pixels import PixelTable
from img2seq.data.row_store import RowStore
from img2seq.data.seeds import generator
from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_encoder import accelerate
from img2seq.progress import Announcer

BATCH_IMAGES = 32
LEAST_AREA, MOST_STRETCHED = 0.5, 1.25  # of a random view: its share of the image, its sides beside those of the image


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def cache_features(
    encoder: ImageEncoder, table: PixelTable, cache_folder: Path, *, mirrored: bool, n_views: int, announce: Announcer
) -> tuple[NDArray[np.generic], dict[str, int]]:
    """Return (rows, variants, P, C) 16-bit features mapped from disk, and the row of each image id.

    The variants are the views of an image (itself, then random parts of it), each followed by its mirror image where `mirrored`.
    Features are computed for images that the cache does not hold yet; its key is the content of the image, how it becomes pixels, and the
    encoder with all its weights.
    """
    variants = n_views * (2 if mirrored else 1)
    shape = (variants, encoder.n_places, encoder.n_features)
    contents = list(dict.fromkeys(table.content_of[i] for i in table.row_of))
    encoder.eval()
    name = f"{table.store.folder.name.removeprefix('pixels-')}-{digest(encoder)[:16]}-{variants}" + (
        "" if n_views == 1 else f"-{n_views}-views"
    )
    # What computed them differs in the fifth place, so they are kept apart; all of either kind are taken as they are.
    folders = [cache_folder / f"features-{backend}{name}" for backend in ("onnx-", "")]
    stores = (RowStore(folder, shape, np.float16) for folder in folders if folder.is_dir())
    store = next((store for store in stores if (store.rows_of(contents) >= 0).all()), None)
    store = store or RowStore(folders[0 if accelerate(encoder) else 1], shape, np.float16)
    row_of_content = {table.content_of[i]: row for i, row in table.row_of.items()}
    missing = [c for c, row in zip(contents, store.rows_of(contents), strict=True) if row < 0]
    total = len(contents) * store.row_bytes / 1e9
    announce.say(
        f"features of {len(contents):,} images take {total:.2f} GB in {store.folder}; {len(missing):,} are still to be computed"
    )
    pixels = table.store.map()
    device = encoder.scale.device
    with announce.bar("computing features", len(contents)) as advance, torch.inference_mode():
        advance(len(contents) - len(missing))
        for start in range(0, len(missing), BATCH_IMAGES):
            part = missing[start : start + BATCH_IMAGES]
            batch = torch.from_numpy(pixels[np.array([row_of_content[c] for c in part])]).permute(0, 3, 1, 2).to(device)
            views = (torch.stack([view(*one, n) for one in zip(batch, part, strict=True)]) for n in range(n_views))
            seen = [
                encoder(one) for of_view in views for one in ([of_view, of_view.flip(3)] if mirrored else [of_view])
            ]
            features = torch.stack(seen, 1).to(torch.float16).cpu().numpy()
            store.add(dict(zip(part, features, strict=True)))
            advance(len(part))
    ids = list(table.row_of)
    rows = store.rows_of([table.content_of[i] for i in ids])
    return store.map(), dict(zip(ids, rows.tolist(), strict=True))


def view(pixels: Tensor, content: str, number: int) -> Tensor:
    """Return (C, H, W) uint8 pixels: the image itself as view 0, else a part of it that follows from content and number, at the image's size."""
    if number == 0:
        return pixels
    rng, (height, width) = generator("view", content, number), pixels.shape[1:]
    side = math.sqrt(rng.uniform(LEAST_AREA, 1))
    stretched = math.exp(rng.uniform(-0.5, 0.5) * math.log(MOST_STRETCHED))
    h, w = min(height, round(height * side / stretched)), min(width, round(width * side * stretched))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part = pixels[None, :, top : top + h, left : left + w].float()
    return F.interpolate(part, (height, width), mode="bilinear", antialias=True)[0].round().to(torch.uint8)
