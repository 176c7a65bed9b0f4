"""The application: routes, errors, documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from img2seq import __version__
from img2seq.errors import Img2SeqError
from img2seq.serving.desk import Desk, refused
from img2seq.serving.figures import Figures
from img2seq.serving.limits import Refusal
from img2seq.serving.routes import caption, eir, hugging_face, openai, operations
from img2seq.serving.service import Service


def build(
    service: Service,
    *,
    keys: Sequence[str] = (),
    write: Callable[[str], None] | None = None,
    with_captions: bool = False,
) -> ASGIApp:
    """Return the application around a service.

    Args:
        service: which captions.
        keys: one of which a request must have, where there are any.
        write: takes a line of the log; standard error where it is None.
        with_captions: whether captions are logged.
    """
    app = FastAPI(
        title="img2seq",
        version=__version__,
        description="Captions of pictures by trained runs.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
    )
    figures = Figures(service.worker)
    for router in (
        caption.router(service),
        eir.router(service),
        hugging_face.router(service),
        openai.router(service),
        operations.router(service, figures),
    ):
        app.include_router(router)
    app.add_exception_handler(Img2SeqError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(Exception, _fail)
    return Desk(app, figures=figures, keys=keys, write=write, with_captions=with_captions)


async def _fail(request: Request, error: Exception) -> JSONResponse:
    """Answer where we failed: the error is raised on, so that the log has it; the client learns nothing of it."""
    return refused(request.url.path, Refusal(500, "the server failed; its log has more"))


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        error = Refusal(error.status_code, str(error.detail))
    elif not isinstance(error, Img2SeqError):
        error = Refusal(
            422, "the request is not what /openapi.json describes"
        )  # without what was found: it may be a picture
    request.state.error = str(error)
    return refused(request.url.path, error)
