"""What every request passes on its way in and out: a name, a key, one line in the log, one count."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from img2seq.errors import ConfigError, Img2SeqError
from img2seq.serving.figures import Figures
from img2seq.serving.limits import Refusal, busy
from img2seq.serving.service import CLIENT_LEFT, Notes

REQUEST_ID = re.compile(r"[\w.:-]{1,80}", re.ASCII)
OPEN = ("/health", "/ready", "/")  # without a key: balancers have none, and the page asks for it


class Desk:
    """Wraps the application.

    Args:
        app: what answers.
        figures: counts.
        keys: one of which a request must have, where there are any.
        write: takes a line of the log.
        with_captions: whether captions are logged, too; pictures never are.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        figures: Figures,
        keys: Sequence[str] = (),
        write: Callable[[str], None] | None = None,
        with_captions: bool = False,
    ):
        self.app, self.figures, self.with_captions = app, figures, with_captions
        self.keys = [key.encode() for key in keys]
        self.write = write or _to_standard_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers = time.perf_counter(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        status, state = 0, scope.setdefault("state", {})

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        crash = ""
        try:
            if self._may(scope["path"], headers):
                await self.app(scope, receive, answer)
            else:
                refusal = Refusal(401, "expected an API key: Authorization: Bearer KEY")
                await refused(scope["path"], refusal)(scope, receive, answer)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not status:
                await refused(scope["path"], busy("the server has stopped", 5))(scope, receive, answer)
        except Exception as error:  # a fault of ours, which the application has answered
            crash = "".join(traceback.format_exception(error, limit=-8))
        took = time.perf_counter() - began
        route = getattr(scope.get("route"), "path", "other")
        self.figures.observe_request(route, status, took)
        self.write(self._line(request_id, scope, status, took, state.get("notes"), state.get("error", ""), crash))

    def _may(self, path: str, headers: Headers) -> bool:
        if not self.keys or path in OPEN or path.startswith("/page/"):
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if scheme.lower() == "bearer" else b""
        return (
            sum(hmac.compare_digest(given, known) for known in self.keys) > 0
        )  # all of them, so that time tells nothing

    def _line(
        self, request_id: str, scope: Scope, status: int, took: float, notes: Notes | None, error: str, crash: str
    ) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z",
            "id": request_id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "ms": round(1000 * took, 1),
        }
        if notes:
            line |= {"model": notes.model, "bytes": notes.n_bytes, "pictures": notes.n_pictures}
            parts = {"read": notes.read_s, "decode": notes.decode_s, "wait": notes.wait_s, "caption": notes.model_s}
            line |= {f"{name}_ms": round(1000 * value, 1) for name, value in parts.items()}
            line["batch"] = notes.batch_size
            if self.with_captions:
                line["captions"] = list(notes.captions)
        line |= {name: text for name, text in (("error", error), ("traceback", crash)) if text}
        return json.dumps(line, ensure_ascii=True)


def refused(path: str, error: Img2SeqError) -> JSONResponse:
    """Return the answer to a request that cannot be served, as the clients of its route read it."""
    status = error.status if isinstance(error, Refusal) else 422 if isinstance(error, ConfigError) else 400
    message = str(error)
    headers = {}
    if isinstance(error, Refusal) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Refusal) and error.closes:
        headers["Connection"] = "close"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if path.startswith("/v1/"):
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)
    return JSONResponse({"error": message}, status, headers)


def _to_standard_error(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # whoever read the log is gone; requests are answered all the same
