"""What Kubernetes and Prometheus ask for: the probes and the metrics. Open to everybody who reaches the port."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from monitor.telemetry.metrics import CONTENT_TYPE
from monitor.web.answers import HealthAnswer
from monitor.web.view import Health, View

Responses = dict[int | str, dict[str, Any]]


def probes(view: View) -> APIRouter:
    """Return the routes of the probes and the metrics."""
    router = APIRouter(tags=["probes"])
    unwell: Responses = {503: {"model": HealthAnswer, "description": "Something is wrong: the parts say what."}}

    text: Responses = {200: {"content": {CONTENT_TYPE: {}}, "description": "Prometheus' text format."}}

    @router.get("/live", response_model=HealthAnswer, responses=unwell)
    def live() -> Response:
        """Say whether the process does its work. A lost camera never is a reason for a no."""
        return _answer(view.live())

    @router.get("/ready", response_model=HealthAnswer, responses=unwell)
    def ready() -> Response:
        """Say whether events are recognised and kept, and Kafka does not refuse us."""
        return _answer(view.ready())

    @router.get("/metrics", response_class=Response, responses=text)
    def metrics() -> Response:
        """Return all metrics."""
        return Response(view.metrics(), media_type=CONTENT_TYPE)

    return router


def _answer(health: Health) -> JSONResponse:
    return JSONResponse({"ok": health.ok, **health.parts}, status_code=200 if health.ok else 503)
