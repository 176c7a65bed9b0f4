"""`POST /caption`: ours, for curl and the page."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from img2seq.serving.body import media_type
from img2seq.serving.documentation import CAPTION_REQUEST, Captions, answers
from img2seq.serving.limits import Refusal
from img2seq.serving.parse import settings_of_text
from img2seq.serving.service import Asked, Body, Service

if TYPE_CHECKING:
    from img2seq.inference.predictor import Caption

Pairs = list[tuple[str, str]]


def router(service: Service) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.post("/caption", openapi_extra=CAPTION_REQUEST, responses=answers(Captions), tags=["captions"])
    async def caption(request: Request) -> JSONResponse:
        """Caption one picture or several: a multipart form with `image`, or the bytes of one."""
        kind = media_type(request)
        if not (kind == "multipart/form-data" or kind.startswith("image/") or kind == "application/octet-stream"):
            raise Refusal(415, "content-type: expected multipart/form-data with image, or image/*")
        answer = await service.answer(request, partial(_asked, query=request.query_params.multi_items()))
        return JSONResponse({"model": answer.run.name, "captions": [as_json(caption) for caption in answer.captions]})

    return routes


def as_json(caption: Caption, *, with_alternatives: bool = True) -> dict[str, Any]:
    """Return a caption with the certainty of its words."""
    found: dict[str, Any] = {
        "text": caption.text,
        "log_probability": caption.log_probability,
        "tokens": list(caption.tokens),
        "token_log_probabilities": list(caption.token_log_probabilities),
    }
    if with_alternatives:
        found["alternatives"] = [as_json(other, with_alternatives=False) for other in caption.alternatives]
    return found


def _asked(body: Body, query: Pairs) -> Asked:
    pictures: list[bytes] = []
    pairs = list(query)
    if isinstance(body, bytes):
        pictures.append(body)
    else:
        for name, value in body:
            if isinstance(value, bytes) != (name == "image"):
                expected = "a file" if name == "image" else "a text, and pictures under the name image"
                raise Refusal(400, f"form field {name[:80]!r}: expected {expected}")
            if isinstance(value, bytes):
                pictures.append(value)
            else:
                pairs.append((name, value))
    named = dict(pairs)
    model, beginning = named.pop("model", None), named.pop("beginning", "")
    return Asked(pictures, model, [beginning] * len(pictures), settings_of_text(named.items()))
