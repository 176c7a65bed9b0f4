"""`POST /models/{name}`: the task image-to-text of Hugging Face's inference clients.

Its Python client reads a list and fails on an object; its JavaScript client wants the bare object since 4.13.28. So the
answer is a list, and an object under `/models/{name}/object`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from img2seq.config.decoding import SETTINGS
from img2seq.errors import did_you_mean, shown
from img2seq.serving.body import media_type
from img2seq.serving.documentation import HUGGING_FACE_REQUEST, GeneratedText, GeneratedTexts, answers
from img2seq.serving.limits import MOST_TOKENS, Refusal
from img2seq.serving.parse import at_most, json_of, keys_of, picture_or_url
from img2seq.serving.service import Asked, Body, Service

# What transformers calls the settings.
NAMES = {
    "max_new_tokens": "max_length",
    "min_new_tokens": "min_length",
    "num_beams": "beam_size",
    "num_beam_groups": "beam_groups",
    "diversity_penalty": "diversity",
    "num_return_sequences": "n_best",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "typical_p": "tau",
}
WITHOUT_MEANING = ("early_stopping", "use_cache")  # here: they are taken and change nothing
NESTED = ("generation_parameters", "generate_kwargs")  # hold more of them


def router(service: Service) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    async def texts(request: Request, name: str) -> list[dict[str, str]]:
        is_json = media_type(request) == "application/json"
        answer = await service.answer(request, lambda body: _asked(body, name, is_json=is_json))
        (caption,) = answer.captions
        return [{"generated_text": found.text} for found in (caption, *caption.alternatives)]

    @routes.post(
        "/models/{name}", openapi_extra=HUGGING_FACE_REQUEST, responses=answers(GeneratedTexts), tags=["other clients"]
    )
    async def image_to_text(request: Request, name: str) -> JSONResponse:
        """Caption a picture: its bytes, or JSON with `inputs` (base64) and `parameters`."""
        return JSONResponse(await texts(request, name))

    @routes.post(
        "/models/{name}/object",
        openapi_extra=HUGGING_FACE_REQUEST,
        responses=answers(GeneratedText),
        tags=["other clients"],
    )
    async def image_to_text_object(request: Request, name: str) -> JSONResponse:
        """Do the same, and answer with the best caption alone, not in a list."""
        return JSONResponse((await texts(request, name))[0])

    return routes


def _asked(body: Body, name: str, *, is_json: bool) -> Asked:
    if not isinstance(body, bytes):
        raise Refusal(415, "content-type: expected the bytes of a picture, or application/json")
    if not is_json:
        return Asked([body], name)
    found = keys_of(json_of(body), "body")
    parameters = keys_of(found.get("parameters") or {}, "parameters")
    nested = keys_of(
        parameters.get("generation_parameters") or parameters.get("generate_kwargs") or {},
        "parameters.generation_parameters",
    )
    return Asked([picture_or_url(found.get("inputs"), "inputs")], name, decoding=settings_of({**parameters, **nested}))


def settings_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return decoding settings from the names of transformers, or our own."""
    settings: dict[str, Any] = {}
    for name, value in parameters.items():
        ours = NAMES.get(name, name)
        if name in (*WITHOUT_MEANING, *NESTED, "do_sample") or value is None:
            continue
        if ours not in SETTINGS:
            near = did_you_mean(name, (*NAMES, *SETTINGS))
            raise Refusal(422, f"parameters: {shown(name)} is not known.{near}")
        settings[ours] = at_most(value, MOST_TOKENS) if ours == "max_length" else value
    if parameters.get("do_sample"):
        settings.setdefault("method", "sample")
    return settings
