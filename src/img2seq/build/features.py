"""Features of a frozen encoder, computed once for each image and kept on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from img2seq.data.pixels import PixelTable
from img2seq.data.row_store import RowStore
from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_encoder import accelerate
from img2seq.progress import Announcer

BATCH_IMAGES = 32


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def cache_features(
    encoder: ImageEncoder, table: PixelTable, cache_folder: Path, *, mirrored: bool, announce: Announcer
) -> tuple[NDArray[np.generic], dict[str, int]]:
    """Return (rows, variants, P, C) 16-bit features mapped from disk, and the row of each image id.

    The second variant, where `mirrored`, is that of the mirrored image. Features are computed for images that the cache
    does not hold yet; its key is the content of the image, how it becomes pixels, and the encoder with all its weights.
    """
    variants = 2 if mirrored else 1
    shape = (variants, encoder.n_places, encoder.n_features)
    contents = list(dict.fromkeys(table.content_of[i] for i in table.row_of))
    encoder.eval()
    name = f"{table.store.folder.name.removeprefix('pixels-')}-{digest(encoder)[:16]}-{variants}"
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
            both = [encoder(batch)] + ([encoder(batch.flip(3))] if mirrored else [])
            features = torch.stack(both, 1).to(torch.float16).cpu().numpy()
            store.add(dict(zip(part, features, strict=True)))
            advance(len(part))
    ids = list(table.row_of)
    rows = store.rows_of([table.content_of[i] for i in ids])
    return store.map(), dict(zip(ids, rows.tolist(), strict=True))
