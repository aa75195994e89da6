"""Requests of programs in; cameras, scores, alerts, pictures and a stream of changes, as JSON, out. Read-only."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from monitor.web.alerts import MEDIA_TYPES, MOST_POSITION, evidence_of, page_of
from monitor.web.answers import (
    AlertMessagesAnswer,
    AlertsAnswer,
    AllScoresAnswer,
    CameraAnswer,
    CamerasAnswer,
    MonitorAnswer,
    Refusal,
    ScoresAnswer,
    alert_answer,
)
from monitor.web.feed import Feed
from monitor.web.history import KEEP_SECONDS
from monitor.web.login import COOKIE
from monitor.web.probes import Responses
from monitor.web.stream import Broadcaster, EventStream
from monitor.web.view import AlertFilter, View

MOST_ALERTS = 200
MOST_POINTS = 10_000
LATEST_SECONDS = 86_400.0 * 366 * 2000

CameraId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="The camera's id.")]
AlertId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="The alert's id.")]
Absent = SkipJsonSchema[None]
"""A parameter that was not given. No query can say `null`, so the document does not offer it."""
Position = Annotated[int, Field(ge=1, le=MOST_POSITION)]
Moment = Annotated[float, Field(ge=0, le=LATEST_SECONDS, allow_inf_nan=False)] | Absent

bearer = HTTPBearer(auto_error=False, description="The token of the configuration's [http] section.")
cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="What the login page gives a browser.")
"""Both are checked by `login.Gate`, before any route; they stand here for the OpenAPI document."""
REFUSALS: Responses = {
    401: {"model": Refusal, "description": "The token is missing or wrong."},
    429: {"model": Refusal, "description": "Too many wrong tokens from this address."},
}
NOT_FOUND: Responses = {404: {"model": Refusal, "description": "There is none of that name."}}
PICTURE: Responses = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture."},
    204: {"description": "No picture has come yet."},
}
EVENTS: Responses = {
    200: {"content": {"text/event-stream": {}}, "description": "A stream without an end."},
    503: {"model": Refusal, "description": "Too many look on already, or the monitor stops."},
}


# A route whose answer is no JSON has `Response` for its class: its refusals are JSON nevertheless.


def api(view: View, feed: Feed, broadcaster: Broadcaster) -> APIRouter:
    """Return the routes that programs use."""
    router = APIRouter(prefix="/api/v1", responses=REFUSALS, dependencies=[Depends(bearer), Depends(cookie)])
    _add_cameras(router, view, feed)
    _add_alerts(router, view)

    @router.get("/monitor", tags=["monitor"])
    def monitor() -> MonitorAnswer:
        """Return model, engine and delivery as they stand."""
        return MonitorAnswer.of(view.monitor())

    @router.get(
        "/events",
        tags=["monitor"],
        response_class=Response,
        responses=EVENTS,
    )
    async def events(
        after: Annotated[str, Query(max_length=64, description="Id of the last event that was seen.")] = "",
        last_event_id: Annotated[str, Header(max_length=64, description="Likewise, as browsers send it.")] = "",
    ) -> Response:
        """Tell what changes, as server-sent events.

        Kinds: `monitor`, `camera`, `cameras` (the ids of all that are watched), `scores`, `alert`, `evidence`, `reset`
        (more was missed than is kept: ask for everything anew).
        """
        if broadcaster.full:
            return JSONResponse({"detail": "Too many look on already."}, status_code=503, headers={"Retry-After": "10"})
        return EventStream(broadcaster.join(last_event_id or after), broadcaster.leave)

    return router


def media(view: View) -> APIRouter:
    """Return the route of the files of evidence, where the alerts' links lead."""
    router = APIRouter(responses=REFUSALS, dependencies=[Depends(bearer), Depends(cookie)], tags=["alerts"])
    ranges: Responses = {
        206: {"description": "The part that was asked for."},
        416: {"description": "There is no such part."},
    }
    content: Responses = {200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "The file."}}

    @router.head("/media/{name}", include_in_schema=False)
    @router.get("/media/{name}", response_class=Response, responses={**content, **ranges, **NOT_FOUND})
    def evidence(name: str) -> Response:
        """Return a clip, snapshot or strip; answers range requests, so that clips can be sought in."""
        path = view.media(name)
        if path is None:
            return _not_found()
        return FileResponse(
            path, media_type=MEDIA_TYPES[path.suffix], headers={"Cache-Control": "private, max-age=3600"}
        )

    return router


def _add_cameras(router: APIRouter, view: View, feed: Feed) -> None:
    @router.get("/cameras", tags=["cameras"])
    def cameras() -> CamerasAnswer:
        """Return every camera as it stands."""
        return CamerasAnswer(cameras=[CameraAnswer.of(camera) for camera in view.cameras()])

    @router.get("/cameras/{camera}", tags=["cameras"], response_model=CameraAnswer, responses=NOT_FOUND)
    def one(camera: CameraId) -> Any:
        """Return one camera as it stands."""
        found = next((CameraAnswer.of(other) for other in view.cameras() if other.id == camera), None)
        return _not_found() if found is None else found

    @router.get(
        "/cameras/{camera}/picture.jpg",
        tags=["cameras"],
        response_class=Response,
        responses={**PICTURE, **NOT_FOUND},
    )
    def picture(camera: CameraId) -> Response:
        """Return the camera's latest picture, and have a newer one made."""
        if not _is_known(view, camera):
            return _not_found()
        latest = feed.pictures.latest(camera)
        if latest is None:
            return Response(status_code=204)
        return Response(latest.jpeg, media_type="image/jpeg", headers={"X-Picture-Time": f"{latest.seconds:.3f}"})

    @router.get("/cameras/{camera}/scores", tags=["cameras"], response_model=ScoresAnswer, responses=NOT_FOUND)
    def scores(
        camera: CameraId,
        since: Moment = None,
        until: Moment = None,
        points: Annotated[int, Query(ge=1, le=MOST_POINTS, description="At most so many windows.")] = 1200,
    ) -> Any:
        """Return a camera's scored windows of the last hour; of neighbours, the one with the highest score."""
        if not _is_known(view, camera):
            return _not_found()
        since = time.time() - KEEP_SECONDS if since is None else since
        found = feed.history.scores(camera, since=since, until=math.inf if until is None else until, points=points)
        return ScoresAnswer.of(camera, found)

    @router.get("/scores", tags=["cameras"])
    def all_scores(
        seconds: Annotated[float, Query(gt=0, le=KEEP_SECONDS, allow_inf_nan=False)] = 60.0,
        points: Annotated[int, Query(ge=1, le=1000, description="At most so many windows a camera.")] = 200,
    ) -> AllScoresAnswer:
        """Return the newest scored windows of every camera."""
        since = time.time() - seconds
        found = {camera.id: feed.history.scores(camera.id, since=since, points=points) for camera in view.cameras()}
        return AllScoresAnswer(cameras=[ScoresAnswer.of(camera, one) for camera, one in found.items() if one])


def _add_alerts(router: APIRouter, view: View) -> None:
    @router.get("/alerts", tags=["alerts"])
    def alerts(
        camera: Annotated[str | Absent, Query(max_length=63)] = None,
        label: Annotated[str | Absent, Query(max_length=200)] = None,
        since: Moment = None,
        until: Moment = None,
        before: Annotated[Position | Absent, Query(description="From the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_ALERTS)] = 50,
    ) -> AlertsAnswer:
        """Return a page of alerts, newest first, each as its newest message."""
        found, following = page_of(view, AlertFilter(camera, label, since, until), before=before, limit=limit)
        answers = [alert_answer(one, list(evidence_of(view, str(one.message["alert_id"])).values())) for one in found]
        return AlertsAnswer(alerts=answers, before=following)

    @router.get("/alerts/{alert_id}", tags=["alerts"], response_model=AlertMessagesAnswer, responses=NOT_FOUND)
    def alert(alert_id: AlertId) -> Any:
        """Return every message of one alert."""
        messages = view.alert(alert_id)
        if not messages:
            return _not_found()
        evidence = list(evidence_of(view, alert_id).values())
        return AlertMessagesAnswer(messages=[dict(message) for message in messages], evidence=evidence)


def _is_known(view: View, camera: str) -> bool:
    return any(other.id == camera for other in view.cameras())


def _not_found() -> JSONResponse:
    return JSONResponse({"detail": "Not Found"}, status_code=404)
