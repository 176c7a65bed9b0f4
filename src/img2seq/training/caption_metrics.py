"""Scores in the loop: caption validation images at an evaluation, and score them as `img2seq evaluate` does."""

from __future__ import annotations

from collections.abc import Callable

from img2seq.build.facts import image_specs
from img2seq.build.prepare import Prepared
from img2seq.config.decoding import Decoding
from img2seq.config.globals import CaptionMetrics
from img2seq.config.schema import Experiment
from img2seq.inference.from_run import defaults_of
from img2seq.inference.predictor import Predictor
from img2seq.inference.torch_model import TorchModel
from img2seq.metrics.repeated import RepeatedScore
from img2seq.model.caption_model import CaptionModel
from img2seq.training.distributed import World
from img2seq.training.samples import choose_images

BATCH_IMAGES = 64


class CaptionScorer:
    """Captions some validation images, always the same, and scores the captions.

    Document frequency is counted over the references of these images. Where there are several processes each captions its
    share; all have the scores.

    Args:
        metrics: how many images, and how to search.
        config: the run's.
        prepared: the run's data.
        world: the processes.
    """

    def __init__(self, metrics: CaptionMetrics, config: Experiment, prepared: Prepared, world: World):
        self.valid, self.tokenizer, self.world = prepared.valid, prepared.tokenizer, world
        self.specs = image_specs(config.inputs)
        place_of = {image_id: place for place, image_id in enumerate(self.valid.image_ids)}
        self.image_ids = choose_images(place_of, metrics.n_images or len(place_of))
        self.places = [place_of[image_id] for image_id in self.image_ids]
        how = metrics.model_dump(exclude={"n_images"}) | defaults_of(
            config.output.output_type_info.max_length, prepared.facts.max_length
        )
        self.decoding = Decoding(**how)
        self.score = RepeatedScore(
            {i: self.valid.captions[p] for i, p in zip(self.image_ids, self.places, strict=True)}
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def measure(
        self, model: CaptionModel, *, advance: Callable[[int], None], before_batch: Callable[[], None]
    ) -> dict[str, float]:
        """Return the scores of a model's captions; the model is left in the mode it was in.

        All processes call `before_batch` equally often: there they can agree to give up.
        """
        was_training = model.training
        predictor = Predictor(TorchModel(model), self.tokenizer, self.specs)
        captions: dict[int, str] = {}
        for start in range(0, len(self), BATCH_IMAGES * self.world.size):
            before_batch()
            mine = range(start, min(len(self), start + BATCH_IMAGES * self.world.size))[
                self.world.rank :: self.world.size
            ]
            if mine:
                pixels, features = self.valid.read_images([self.places[i] for i in mine])
                names = [self.image_ids[i] for i in mine]
                found = predictor.captions(self.decoding, names=names, pixels=pixels, features=features)
                captions |= {i: caption.text for i, caption in zip(mine, found, strict=True)}
                advance(len(mine))
        model.train(was_training)
        return self.score.of(dict(zip(self.image_ids, self.world.all_texts(captions, len(self)), strict=True)))
