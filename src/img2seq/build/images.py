"""Where an input's images are, for training and for evaluation: pixels in the cache, or a frozen encoder's features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from img2seq.build.features import cache_features
from img2seq.config.globals import BasicExperiment
from img2seq.config.inputs import ImageInput
from img2seq.data.caption_set import ImageRows
from img2seq.data.image import ImageSpec
from img2seq.data.pixels import PixelTable
from img2seq.data.row_store import default_cache_folder
from img2seq.model.caption_model import CaptionModel
from img2seq.progress import Announcer


def cache_folder(basic: BasicExperiment) -> Path:
    """Return where pixels and features are kept."""
    return Path(basic.cache_folder) if basic.cache_folder else default_cache_folder()


class InputImages:
    """The images of one input, of which each part of the data takes its own.

    Args:
        entry: the input.
        table: its pixels in the cache.
        model: whose frozen encoder computes features, where the input asks for that.
        basic: where features are kept, and whether rows are held in memory.
        announce: for progress.
    """

    def __init__(
        self, entry: ImageInput, table: PixelTable, model: CaptionModel, basic: BasicExperiment, announce: Announcer
    ):
        self.entry, self.spec = entry, ImageSpec.of(entry.input_type_info)
        self.are_features = entry.model.cache_features
        if self.are_features:
            mirrored = entry.input_type_info.horizontal_flip
            self.rows, self.row_of = cache_features(
                model.encoder(entry.name), table, cache_folder(basic), mirrored=mirrored, announce=announce
            )
        else:
            self.rows, self.row_of = table.store.map(), table.row_of
        if basic.memory_dataset:
            ids = list(self.row_of)
            self.rows = self.rows[np.array([self.row_of[i] for i in ids])]
            self.row_of = {image_id: place for place, image_id in enumerate(ids)}

    def of(self, ids: Sequence[str]) -> ImageRows:
        """Return the rows of these images, in this order."""
        info = self.entry.input_type_info
        row_of = np.array([self.row_of[image_id] for image_id in ids], dtype=np.int64)
        return ImageRows(self.rows, row_of, self.spec, info.auto_augment, info.horizontal_flip, self.are_features)
