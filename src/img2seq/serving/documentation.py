"""What OpenAPI says of requests and answers. Decoding settings come from the one place that declares them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, RootModel, TypeAdapter

from img2seq.config.decoding import Decoding
from img2seq.serving.limits import MOST_ROWS, MOST_TOKENS

BASE64 = {"type": "string", "contentEncoding": "base64", "description": "a picture as base64, or a data URL"}
LOWER_HERE = {"beam_size": MOST_ROWS, "n_best": MOST_ROWS, "max_length": MOST_TOKENS, "min_length": MOST_TOKENS}
SETTINGS_SCHEMA: dict[str, dict[str, Any]] = {
    name: {
        key: LOWER_HERE.get(name, value) if key == "maximum" else value
        for key, value in schema.items()
        if key != "title"
    }
    for name, schema in TypeAdapter(Decoding).json_schema()["properties"].items()
}


class Alternative(BaseModel):
    """A caption and how sure the model is of it."""

    text: str
    log_probability: float
    tokens: list[str]
    token_log_probabilities: list[float]


class Caption(Alternative):
    """The best caption of a picture."""

    alternatives: list[Alternative]


class Captions(BaseModel):
    """The captions of a request's pictures, in their order."""

    model: str
    captions: list[Caption]


class Predictions(BaseModel):
    """The captions of a list, each under the run's own name for it."""

    result: list[dict[str, str]]


class GeneratedText(BaseModel):
    """A caption."""

    generated_text: str


class GeneratedTexts(RootModel[list[GeneratedText]]):
    """The captions of a picture, best first."""


class ChatCompletion(BaseModel):
    """An answer as OpenAI's clients read it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]


class ModelCard(BaseModel):
    """A run."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The runs."""

    object: str
    data: list[ModelCard]


class Status(BaseModel):
    """What a server is doing."""

    status: Literal["alive", "loading", "ready", "draining", "stopped", "failed"]


class Error(BaseModel):
    """What was expected, and what was found."""

    error: str | dict[str, Any]


REASONS = {
    400: "a picture, a text or the body cannot be used",
    401: "an API key is missing or wrong",
    404: "there is no such run",
    413: "too large, or too many pictures",
    415: "another kind of body is expected",
    422: "a setting is unknown or out of its range",
    503: "the queue is full, or the server is about to stop; Retry-After says when to come again",
    504: "not answered in time",
}


def answers(model: type[BaseModel], *, errors: bool = True) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route, refusals included."""
    found: dict[int | str, dict[str, Any]] = {200: {"model": model}}
    if errors:
        found |= {status: {"model": Error, "description": reason} for status, reason in REASONS.items()}
    return found


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


_TEXTS = {
    "beginning": {"type": "string", "description": "what the caption begins with", "default": ""},
    "model": {"type": "string", "description": "name of the run; the first one where it is not given"},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

CAPTION_REQUEST = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
        for name, schema in (_TEXTS | SETTINGS_SCHEMA).items()
    ],
    **_body(
        {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
                        **_TEXTS,
                        **SETTINGS_SCHEMA,
                    },
                }
            },
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
        }
    ),
}
PREDICT_REQUEST = _body(
    {
        "application/json": {
            "schema": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "description": "the run's name of the picture with base64, and its name of the caption with the beginning "
                    "(`/info` has both names)",
                },
            }
        }
    }
)
HUGGING_FACE_REQUEST = _body(
    {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "inputs": BASE64,
                    "parameters": {
                        "type": "object",
                        "description": "max_new_tokens, num_beams, do_sample, temperature, top_k, top_p and the like, or our own settings",
                        "properties": SETTINGS_SCHEMA,
                    },
                },
            }
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    }
)
CHAT_REQUEST = _body(
    {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["messages"],
                "properties": {
                    "model": _TEXTS["model"],
                    "messages": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "properties": {
                                "role": {"type": "string"},
                                "content": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["type"],
                                        "properties": {
                                            "type": {"enum": ["text", "image_url"]},
                                            "text": {"type": "string"},
                                            "image_url": {
                                                "type": "object",
                                                "required": ["url"],
                                                "properties": {"url": BASE64},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                    "n": {"type": "integer", "minimum": 1, "description": "captions of the picture"},
                    "max_tokens": SETTINGS_SCHEMA["max_length"],
                    "max_completion_tokens": SETTINGS_SCHEMA["max_length"],
                    "stream": {"type": "boolean"},
                    "logprobs": {"type": "boolean"},
                    "text_is_beginning": {"type": "boolean", "description": "the caption begins with the last text"},
                    **SETTINGS_SCHEMA,
                },
            }
        }
    }
)
