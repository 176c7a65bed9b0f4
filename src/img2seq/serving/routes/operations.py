"""For load balancers, Prometheus and people: is it alive, is it ready, what is it, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from img2seq import __version__
from img2seq.serving.documentation import SETTINGS_SCHEMA, Status, answers
from img2seq.serving.figures import Figures
from img2seq.serving.limits import MOST_ROWS, MOST_TOKENS, Refusal
from img2seq.serving.service import Service

PAGE = Path(__file__).parents[1] / "page"
DOCS = Path(__file__).parents[1] / "docs.html"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing is loaded from elsewhere, and no other site may show the page in a frame.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
NOTES = [
    "The text beside a picture in /v1/chat/completions is ignored, unless text_is_beginning is true: then the caption begins with it.",
    "The same request has the same captions; samples depend on seed and on the picture's place in the request.",
]


def router(service: Service, figures: Figures) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health", responses=answers(Status, errors=False))
    async def health() -> JSONResponse:
        """Say that the process answers."""
        return JSONResponse({"status": "alive"})

    @routes.get("/ready", responses={**answers(Status, errors=False), 503: {"model": Status}})
    async def ready() -> JSONResponse:
        """Say whether captions are to be had: models are warm, and the server is not about to stop."""
        state = service.worker.state
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    for path, answer in (("/health", health), ("/ready", ready)):  # some balancers ask without wanting the body
        routes.head(path, include_in_schema=False)(answer)

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Give Prometheus its figures."""
        return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/info")
    async def info() -> dict[str, Any]:
        """Describe the runs, the limits and the settings."""
        limits, default = service.limits, service.runs.default
        models = [run.describe() for run in service.runs.by_name.values()]
        return {
            "version": __version__,
            "models": [{**model, "is_default": model["name"] == default.name} for model in models],
            "limits": {
                "max_bytes": limits.max_bytes,
                "max_pixels": default.spec.max_pixels,
                "max_pictures": limits.max_pictures,
                "max_queue": limits.max_queue,
                "timeout_s": limits.timeout_s,
                "max_rows": MOST_ROWS,
                "max_tokens": MOST_TOKENS,
            },
            "decoding": SETTINGS_SCHEMA,
            "notes": NOTES,
        }

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """Show people what OpenAPI shows programs; FastAPI's own page loads scripts from elsewhere."""
        import jinja2

        template = jinja2.Template(DOCS.read_text(encoding="utf-8"), autoescape=True)
        text = template.render(api=request.app.openapi(), base=str(request.base_url).rstrip("/"))
        return Response(text, media_type="text/html", headers=PAGE_HEADERS)

    @routes.get("/", include_in_schema=False)
    async def page() -> Response:
        return _page_file("index.html")

    routes.head("/", include_in_schema=False)(page)

    @routes.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return _page_file(name)

    return routes


def _page_file(name: str) -> Response:
    """Return a file of the page; none but those that lie there."""
    path = {path.name: path for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}.get(name)
    if path is None:
        raise Refusal(404, "there is no such page")
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=PAGE_HEADERS)
