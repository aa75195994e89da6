"""The running monitor in; the application that serves its page, its API, its probes and metrics out. Read-only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from monitor import __version__
from monitor.web.api import api, media
from monitor.web.feed import Feed
from monitor.web.headers import SecurityHeaders
from monitor.web.login import Gate, Login
from monitor.web.pages import Pages, pages
from monitor.web.probes import probes
from monitor.web.stream import Broadcaster
from monitor.web.view import View

STATIC = Path(__file__).parent / "static"
DESCRIPTION = (
    "Cameras, scores and alerts of a running video event monitor. Times are seconds since the Unix epoch, UTC."
)


class Page:
    """Everything that is served on the one port.

    Args:
        view: the running monitor.
        feed: what the page remembers of what the stages tell.
        token: what people and programs have to know; empty: nothing.
        host: the address that is listened on.
    """

    def __init__(self, view: View, feed: Feed, *, token: str = "", host: str = "127.0.0.1") -> None:
        login = Login(token) if token else None
        self._broadcaster = Broadcaster(view, feed)
        self.app = app = FastAPI(
            title="Video event monitor",
            version=__version__,
            description=DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            openapi_url="/api/v1/openapi.json",
        )
        app.include_router(probes(view))
        app.include_router(api(view, feed, self._broadcaster))
        app.include_router(media(view))
        made = Pages(view, feed, login)
        app.include_router(pages(made))
        app.mount("/static", StaticFiles(directory=STATIC))
        app.add_middleware(Gate, login=login, host=host)
        app.add_middleware(SecurityHeaders)  # the last added is the outermost: refusals have the headers too

        @app.exception_handler(HTTPException)
        async def refused(request: Request, exc: HTTPException) -> Response:
            if exc.status_code == 404 and "text/html" in request.headers.get("accept", ""):
                return made.render(request, "missing.html", status=404, detail=exc.detail)
            return await http_exception_handler(request, exc)

    @property
    def onlookers(self) -> int:
        """How many browsers look on; from any thread."""
        return self._broadcaster.count

    def close(self) -> None:
        """End the streams of changes, so that the server can stop; from any thread."""
        self._broadcaster.close()


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the API and the probes."""
    nothing = cast(View, None)  # no route is called
    return Page(nothing, Feed()).app.openapi()
