"""One page on which a person can sort pictures by score and read captions beside references."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from img2seq.progress import counted

METRIC_NAMES = {
    "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D", "meteor": "METEOR", "spice": "SPICE",
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """One image with its caption, its references and its scores.

    Attributes:
        image_id: of the image.
        caption: generated.
        references: of people.
        scores: by metric.
        picture: a small JPEG, where there is one.
    """

    image_id: str
    caption: str
    references: Sequence[str]
    scores: Mapping[str, float]
    picture: bytes | None

    @property
    def picture_uri(self) -> str:
        return "" if self.picture is None else "data:image/jpeg;base64," + base64.b64encode(self.picture).decode()


def evaluation_page(cards: Sequence[Scored], metrics: Mapping[str, Any], *, n_images: int) -> str:
    """Return a self-contained HTML page; `metrics` as in metrics.json."""
    names = {key: name for key, name in METRIC_NAMES.items() if key in metrics}
    return page_template("evaluation.html").render(
        cards=cards,
        metrics=metrics,
        names=names,
        titles=METRIC_NAMES,
        notes=[*metrics["notes"], *filter(None, [metrics["diversity"]["alarm"]])],
        n_images=n_images,
        sortable={k: v for k, v in names.items() if cards and k in cards[0].scores},
    )


def page_template(name: str) -> jinja2.Template:
    """Return a template of this package; it escapes what is put in, and refuses names that are missing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("img2seq.report", "templates"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals["counted"] = counted
    return environment.get_template(name)
