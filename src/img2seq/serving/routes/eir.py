"""`POST /predict`: the requests of users of EIR's server, as in the tutorial."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from img2seq.errors import did_you_mean, shown
from img2seq.serving.documentation import PREDICT_REQUEST, Predictions, answers
from img2seq.serving.limits import Refusal
from img2seq.serving.models import ServedRun
from img2seq.serving.parse import json_of, keys_of, kind, picture_of, text_of
from img2seq.serving.service import Asked, Body, Service


def router(service: Service) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.post("/predict", openapi_extra=PREDICT_REQUEST, responses=answers(Predictions), tags=["other clients"])
    async def predict(request: Request) -> JSONResponse:
        """Caption a list of pictures with the default run: each an object with the run's own names for picture and caption."""
        answer = await service.answer(request, lambda body: _asked(body, service.runs.default))
        return JSONResponse({"result": [{answer.run.output_name: caption.text} for caption in answer.captions]})

    return routes


def _asked(body: Body, run: ServedRun) -> Asked:
    items = json_of(body)
    if not isinstance(items, list):
        raise Refusal(400, f"body: expected a list of objects; found {kind(items)}")
    pictures, beginnings, names = [], [], (run.input_name, run.output_name)
    for place, value in enumerate(items):
        item = keys_of(value, f"[{place}]")
        for name in item:
            if name not in names:
                raise Refusal(
                    422, f"[{place}]: expected {' and '.join(names)}; found {shown(name)}.{did_you_mean(name, names)}"
                )
        if run.input_name not in item:
            raise Refusal(422, f"[{place}]: {run.input_name} is missing: expected a picture as base64")
        pictures.append(picture_of(item[run.input_name], f"[{place}].{run.input_name}"))
        beginnings.append(text_of(item.get(run.output_name), f"[{place}].{run.output_name}"))
    return Asked(pictures, beginnings=beginnings)
