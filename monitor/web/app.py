"""HTTP requests in; health, metrics and a page of cameras and alerts out. Read-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.templating import Jinja2Templates

from monitor import __version__
from monitor.telemetry.metrics import CONTENT_TYPE

SHOWN_ALERTS = 50
MEDIA_TYPES = {".jpg": "image/jpeg", ".mp4": "video/mp4"}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; media-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to a probe."""

    ok: bool
    parts: Mapping[str, str] = field(default_factory=dict)
    """Part of the program to one line on it."""


class View(Protocol):
    """What the running monitor lets be seen. Every method may be called from any thread."""

    def live(self) -> Health:
        """Whether the process does its work; false means: restart it. A lost camera never is a reason."""
        ...

    def ready(self) -> Health:
        """Whether events are recognised and kept; false means: look at it."""
        ...

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        ...

    def cameras(self) -> Sequence[Any]:
        """Return each camera as it stands."""
        ...

    def pipeline(self) -> Any:
        """Return the stages behind capture as they stand."""
        ...

    def alerts(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the newest alert messages, newest first."""
        ...

    def media(self, name: str) -> Path | None:
        """Return a file of evidence; None where there is none of that name."""
        ...


def create_app(view: View) -> FastAPI:
    """Return the application that serves `view`."""
    app = FastAPI(title="Video event monitor", version=__version__, docs_url=None, redoc_url=None)
    templates = Jinja2Templates(directory=Path(__file__).parent / "templates")
    templates.env.filters["clock"] = _clock

    @app.middleware("http")
    async def secure(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(SECURITY_HEADERS)
        return response

    @app.get("/live")
    def live() -> JSONResponse:
        return _answer(view.live())

    @app.get("/ready")
    def ready() -> JSONResponse:
        return _answer(view.ready())

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(view.metrics(), media_type=CONTENT_TYPE)

    @app.api_route("/media/{name}", methods=["GET", "HEAD"])
    def media(name: str) -> Response:
        path = view.media(name)
        if path is None:
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix])  # answers range requests, so that clips can seek

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> Response:
        return templates.TemplateResponse(
            request,
            "index.html",
            {
                "cameras": view.cameras(),
                "pipeline": view.pipeline(),
                "alerts": view.alerts(SHOWN_ALERTS),
                "has_media": lambda name: view.media(name) is not None,
                "version": __version__,
            },
        )

    return app


def _answer(health: Health) -> JSONResponse:
    return JSONResponse({"ok": health.ok, **health.parts}, status_code=200 if health.ok else 503)


def _clock(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else "–"
