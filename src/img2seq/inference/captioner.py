"""Caption images with a trained run, from Python.

>>> from img2seq import Captioner  # doctest: +SKIP
>>> Captioner.load("runs/x").caption("photo.jpg", beam_size=5)  # doctest: +SKIP
Caption(text='A dog runs on the beach .', ...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec, Pixels, from_any
from img2seq.errors import ConfigError, ModelError, shown
from img2seq.inference.loaded import Loaded
from img2seq.inference.predictor import Caption, Predictor
from img2seq.run.captioning_folder import captioning_folder, is_onnx_export

if TYPE_CHECKING:
    from img2seq.build.trained import TrainedRun
    from img2seq.run.onnx_folder import Precision

PRECISIONS = ("fp32", "fp16", "int8")
ImageSource = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
Views = Mapping[str, Pixels]  # of an image, by input name


class Captioner:
    """A trained model that captions images. Made by `Captioner.load`."""

    def __init__(self, loaded: Loaded, *, batch_size: int = 32):
        self.loaded, self.batch_size = loaded, batch_size
        self.predictor = Predictor(loaded.model, loaded.tokenizer, loaded.specs)
        self.input_name, self.spec = (loaded.members or (loaded,))[0].image_input
        self.decoding_defaults = dict(loaded.decoding_defaults)

    @property
    def specs(self) -> Mapping[str, ImageSpec]:
        """Return how pictures become pixels, by input name: several models may take several sizes."""
        return self.predictor.specs

    @property
    def trained(self) -> TrainedRun:
        """Return the model in torch. Raises ModelError for an export without it, and for several models."""
        if self.loaded.trained is None:
            found = f"{len(self.loaded.members)} models" if self.loaded.members else "an export for ONNX Runtime"
            raise ModelError(f"{self.loaded.path}: expected a run, found {found}: there is no one model of torch")
        return self.loaded.trained

    @classmethod
    def load(
        cls,
        run: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        device: str = "auto",
        step: int | None = None,
        batch_size: int = 32,
        precision: Precision = "fp32",
        mirror: bool = False,
    ) -> Captioner:
        """Load a run's best checkpoint, or an export; or several, whose probabilities are averaged token by token.

        Args:
            run: a run folder, an export, or the name of one on the hub: hf:OWNER/NAME, hf:OWNER/NAME@REVISION. Several, as a list,
                must have the same tokenizer.
            device: cpu, cuda, cuda:N, mps or auto; an export for ONNX Runtime computes on the CPU.
            step: of the checkpoint, in place of the best one.
            batch_size: images captioned together.
            precision: of an export for ONNX Runtime: fp32, or fp16 or int8 where it was written with them.
            mirror: average over a picture and its mirror image, too.

        Raises:
            RunError: if the run is incomplete or damaged.
            ModelError: if several have different tokenizers.
            Img2SeqError: if it needs PyTorch, which is not installed.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision: expected {', '.join(PRECISIONS)}; found {shown(precision)}")
        runs = [run] if isinstance(run, str | PathLike) else list(run)
        members = [_load(one, device=device, step=step, precision=precision) for one in runs]
        if len(members) == 1 and not mirror:
            return cls(members[0], batch_size=batch_size)
        from img2seq.inference.ensemble import ensemble

        return cls(ensemble(members, mirror=mirror), batch_size=batch_size)

    def prepare_for_many(self) -> bool:
        """Take a few seconds to make captioning faster, where `img2seq[fast]` is installed; return whether it is."""
        return self.loaded.model.prepare_for_many()

    def prepare_decoder(self) -> bool:
        """Take a fraction of a second to make decoding faster, where `img2seq[fast]` is installed; return whether it is."""
        return self.loaded.model.prepare_decoder()

    def leave_a_core(self) -> None:
        """Leave a core to what a server does beside captioning."""
        self.loaded.model.leave_a_core()

    @overload
    def caption(self, images: ImageSource, *, beginning: str = "", **decoding: Any) -> Caption: ...

    @overload
    def caption(self, images: Sequence[ImageSource], *, beginning: str = "", **decoding: Any) -> list[Caption]: ...

    def caption(
        self, images: ImageSource | Sequence[ImageSource], *, beginning: str = "", **decoding: Any
    ) -> Caption | list[Caption]:
        """Caption one image, or each of a list.

        Args:
            images: paths, bytes of image files, PIL images, or uint8 arrays (H, W), (H, W, 3), (H, W, 4).
            beginning: what every caption begins with.
            decoding: fields of `Decoding`, such as beam_size=5, n_best=3 or method="sample". max_length is by default the run's.

        Raises:
            DataError: if an image cannot be used, or the beginning has words the model does not know.
            ConfigError: for a decoding field that is unknown or out of range.
        """
        settings = Decoding.of(self.decoding_defaults | decoding)
        if isinstance(images, list | tuple):
            return list(self._caption_many(images, settings, beginning))
        (one,) = self._caption_many([images], settings, beginning)
        return one

    def _caption_many(self, images: Sequence[Any], settings: Decoding, beginning: str) -> Iterator[Caption]:
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            views = [{name: from_any(image, spec) for name, spec in self.specs.items()} for image in part]
            names = [str(start + i) for i in range(len(views))]
            yield from self.caption_views(views, settings, beginning=beginning, names=names)

    def caption_views(
        self, views: Sequence[Views], decoding: Decoding, *, beginning: str = "", names: Sequence[str]
    ) -> list[Caption]:
        """Return the caption of each of a batch's images, given as the pixels that `data.image` makes of them for each of `specs`."""
        predictor = self.predictor
        return predictor.captions(
            decoding,
            names=names,
            pixels={name: predictor.pixel_batch(name, [of_image[name] for of_image in views]) for name in self.specs},
            beginnings=[predictor.beginning_tokens(beginning)] * len(views),
        )


def _load(run: str | PathLike[str], *, device: str, step: int | None, precision: Precision) -> Loaded:
    folder = captioning_folder(run)
    if is_onnx_export(folder):  # the other way needs torch, this one does without
        from img2seq.inference.from_export import captioning_export

        return captioning_export(folder, device=device, step=step, precision=precision)
    if precision != "fp32":
        raise ConfigError(f"precision: expected fp32 for a run, found {precision}")
    from img2seq.inference.from_run import captioning_run

    return captioning_run(str(folder), device=device, step=step)
