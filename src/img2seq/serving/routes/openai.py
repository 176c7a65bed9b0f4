"""`POST /v1/chat/completions` and `GET /v1/models`: OpenAI's clients, and all that is built on them.

The last picture of the conversation is captioned. Its text is not the beginning of the caption, for people write a question
there; `text_is_beginning: true` (in Python `extra_body`) makes it so. All decoding settings are taken under their own names, too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from img2seq.config.decoding import SETTINGS
from img2seq.serving.documentation import CHAT_REQUEST, ChatCompletion, ModelCard, ModelList, answers
from img2seq.serving.limits import MOST_TOKENS, Refusal
from img2seq.serving.parse import at_most, is_number, json_of, keys_of, kind, picture_or_url, text_of
from img2seq.serving.service import Answer, Asked, Body, Service, Url

if TYPE_CHECKING:
    from img2seq.inference.predictor import Caption


def router(service: Service) -> APIRouter:
    """Return the routes."""
    routes, began = APIRouter(), int(time.time())

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": began, "owned_by": "img2seq"}

    @routes.get("/v1/models", responses=answers(ModelList), tags=["other clients"])
    async def models() -> JSONResponse:
        """List the runs."""
        return JSONResponse({"object": "list", "data": [card(name) for name in service.runs.by_name]})

    @routes.get("/v1/models/{name}", responses=answers(ModelCard), tags=["other clients"])
    async def model(name: str) -> JSONResponse:
        """Describe a run."""
        return JSONResponse(card(service.runs.named(name).name))

    @routes.post(
        "/v1/chat/completions", openapi_extra=CHAT_REQUEST, responses=answers(ChatCompletion), tags=["other clients"]
    )
    async def chat_completions(request: Request) -> Response:
        """Caption the last picture of a conversation."""
        answer = await service.answer(request, _asked)
        asked: Mapping[str, Any] = answer.asked.kept
        if asked["stream"]:
            return StreamingResponse(
                _events(answer), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        return JSONResponse(_completion(answer))

    return routes


def _asked(body: Body) -> Asked:
    found = keys_of(json_of(body), "body")
    messages = found.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, f"messages: expected a list of messages; found {kind(messages)}")
    pictures: list[bytes | Url] = []
    text = ""
    for i, message in enumerate(messages):
        content = keys_of(message, f"messages[{i}]").get("content")
        for j, part in enumerate(content if isinstance(content, list) else []):
            where = f"messages[{i}].content[{j}]"
            part = keys_of(part, where)
            if part.get("type") == "image_url":
                url = part.get("image_url")
                url = url.get("url") if isinstance(url, dict) else url
                pictures = [picture_or_url(url, f"{where}.image_url")]
            elif part.get("type") == "text":
                text = text_of(part.get("text"), f"{where}.text")
    if not pictures:
        raise Refusal(
            400,
            "messages: expected a picture: content [{type: image_url, image_url: {url: data:image/...;base64,...}}]",
        )
    options = keys_of(found.get("stream_options") or {}, "stream_options")
    kept = {
        "stream": found.get("stream") is True,
        "usage": options.get("include_usage") is True,
        "logprobs": found.get("logprobs") is True,
    }
    beginning = text if found.get("text_is_beginning") is True else ""
    return Asked(pictures, text_of(found.get("model"), "model") or None, [beginning], _settings(found), kept)


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decoding settings of a request: our own names, then OpenAI's, which stand for several."""
    settings = {name: value for name, value in found.items() if name in SETTINGS and value is not None}
    most = found.get("max_completion_tokens") or found.get("max_tokens")
    if most is not None:
        settings["max_length"] = at_most(most, MOST_TOKENS)
    for name, off in (
        ("temperature", 0.01),
        ("top_p", 0.0001),
    ):  # nearly 0: the likeliest caption, for which we search anyway
        if is_number(settings.get(name)) and 0 <= settings[name] <= off:
            del settings[name]
    if "temperature" in settings or settings.get("top_p", 1) != 1 or settings.get("top_k", 0) != 0:
        settings.setdefault("method", "sample")
    if isinstance(settings.get("seed"), int):
        settings["seed"] %= 2**63  # theirs may be any number
    n = found.get("n")
    if n is not None:
        settings["n_best"] = n
        if settings.get("method", "beam") == "beam" and isinstance(n, int):
            settings.setdefault("beam_size", max(n, SETTINGS["beam_size"].default))
    return settings


def _choices(answer: Answer) -> list[Caption]:
    (best,) = answer.captions
    return [best, *best.alternatives]


def _reason(caption: Caption) -> str:
    return "stop" if caption.tokens and caption.tokens[-1] == "<eos>" else "length"


def _logprobs(answer: Answer, caption: Caption) -> dict[str, Any] | None:
    if not answer.asked.kept["logprobs"]:
        return None
    tokens = zip(caption.tokens, caption.token_log_probabilities, strict=True)
    return {
        "content": [
            {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
            for token, value in tokens
        ],
        "refusal": None,
    }


def _frame(answer: Answer, object_: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": object_,
        "created": int(time.time()),
        "model": answer.run.name,
    }


def _usage(answer: Answer) -> dict[str, int]:
    n_tokens = sum(len(caption.tokens) for caption in _choices(answer))
    return {"prompt_tokens": 0, "completion_tokens": n_tokens, "total_tokens": n_tokens}


def _completion(answer: Answer) -> dict[str, Any]:
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": caption.text, "refusal": None},
            "finish_reason": _reason(caption),
            "logprobs": _logprobs(answer, caption),
        }
        for i, caption in enumerate(_choices(answer))
    ]
    return {**_frame(answer, "chat.completion"), "choices": choices, "usage": _usage(answer)}


def _events(answer: Answer) -> Iterator[str]:
    """Yield server-sent events: the words of each caption, as clients expect them to come."""
    frame = _frame(answer, "chat.completion.chunk")

    def event(i: int, delta: dict[str, Any], **more: Any) -> str:
        choice = {"index": i, "delta": delta, "finish_reason": None, "logprobs": None, **more}
        return f"data: {json.dumps({**frame, 'choices': [choice]}, ensure_ascii=False)}\n\n"

    for i, caption in enumerate(_choices(answer)):
        yield event(i, {"role": "assistant", "content": ""})
        words = caption.text.split(" ")
        for place, word in enumerate(words):
            yield event(i, {"content": word if place == len(words) - 1 else f"{word} "})
        yield event(i, {}, finish_reason=_reason(caption), logprobs=_logprobs(answer, caption))
    if answer.asked.kept["usage"]:
        yield f"data: {json.dumps({**frame, 'choices': [], 'usage': _usage(answer)})}\n\n"
    yield "data: [DONE]\n\n"
