"""A browser's requests in; pages out: the wall of cameras, alerts, one alert, one camera, the login."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException

from monitor import __version__
from monitor.records import Threshold
from monitor.web.alerts import evidence_of, page_of, position_of
from monitor.web.answers import ScoresAnswer
from monitor.web.feed import Feed
from monitor.web.login import (
    COOKIE,
    Login,
    address_of,
    clear_session,
    is_tls,
    safe_target,
    set_session,
    too_many,
)
from monitor.web.view import AlertFilter, AlertView, View

log = structlog.get_logger()

PAGE_ALERTS = 20
WALL_ALERTS = 12
CAMERA_ALERTS = 6
MOST_FORM_BYTES = 4096


class Pages:
    """What the pages are made of.

    Args:
        view: the running monitor.
        feed: what the page remembers of what the stages tell.
        login: knows the token; None: there is none.
    """

    def __init__(self, view: View, feed: Feed, login: Login | None) -> None:
        self.view = view
        self.feed = feed
        self.login = login
        self.templates = _templates()

    def render(self, request: Request, name: str, *, status: int = 200, **told: Any) -> HTMLResponse:
        """Return a page, or a piece of one."""
        context = {
            "monitor": self.view.monitor(),
            "version": __version__,
            "has_login": self.login is not None,
            "cursor": f"{self.feed.news.run}-{self.feed.news.serial}",
            "evidence_of": lambda alert_id: evidence_of(self.view, alert_id),
            **told,
        }
        return self.templates.TemplateResponse(request, name, context, status_code=status)

    def newest_scores(self, camera: str) -> ScoresAnswer:
        """Return a camera's newest window, if there is one."""
        return ScoresAnswer.of(camera, self.feed.history.newest(camera))


def pages(made: Pages) -> APIRouter:
    """Return the routes of the pages."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    _add_wall(router, made)
    _add_alerts(router, made)
    _add_login(router, made)
    return router


def _add_wall(router: APIRouter, made: Pages) -> None:
    @router.get("/")
    def wall(request: Request) -> Response:
        cameras = made.view.cameras()
        newest = {camera.id: made.newest_scores(camera.id) for camera in cameras}
        alerts = made.view.alerts(AlertFilter(), limit=WALL_ALERTS)
        pictured = {camera.id for camera in cameras if made.feed.pictures.latest(camera.id) is not None}
        return made.render(request, "wall.html", cameras=cameras, newest=newest, alerts=alerts, pictured=pictured)

    @router.get("/cameras/{camera_id}")
    def camera(request: Request, camera_id: str) -> Response:
        found = next((one for one in made.view.cameras() if one.id == camera_id), None)
        if found is None:
            raise HTTPException(404, "There is no such camera.")
        alerts = made.view.alerts(AlertFilter(camera=camera_id), limit=CAMERA_ALERTS)
        newest = made.newest_scores(camera_id)
        is_pictured = made.feed.pictures.latest(camera_id) is not None
        return made.render(request, "camera.html", camera=found, newest=newest, alerts=alerts, is_pictured=is_pictured)


def _add_alerts(router: APIRouter, made: Pages) -> None:
    @router.get("/alerts")
    def alerts(request: Request) -> Response:
        query = request.query_params
        wanted, problem = filter_of(
            query.get("camera", ""), query.get("label", ""), query.get("since", ""), query.get("until", "")
        )
        before = position_of(query.get("before", ""))
        found, following = page_of(made.view, wanted, before=before, limit=PAGE_ALERTS)
        kept = {key: value for key, value in query.items() if value and key in {"camera", "label", "since", "until"}}
        return made.render(
            request,
            "alerts.html",
            status=422 if problem else 200,
            cameras=made.view.cameras(),
            alerts=found,
            wanted=wanted,
            since=_form_time(wanted.since_seconds),
            until=_form_time(wanted.until_seconds),
            problem=problem,
            is_newest=before is None,
            newest=f"/alerts?{urlencode(kept)}" if kept else "/alerts",
            older=f"/alerts?{urlencode({**kept, 'before': following})}" if following else "",
            filtered=bool(kept),
        )

    @router.get("/alerts/{alert_id}")
    def alert(request: Request, alert_id: str) -> Response:
        messages = made.view.alert(alert_id)
        if not messages:
            raise HTTPException(404, "There is no such alert.")
        return made.render(request, "alert.html", messages=messages, message=messages[-1])

    @router.get("/alerts/{alert_id}/card")
    def card(request: Request, alert_id: str) -> Response:
        """Return one alert as it stands in a list; `small` as on the wall."""
        messages = made.view.alert(alert_id)
        if not messages:
            raise HTTPException(404, "There is no such alert.")
        name = "small_card.html" if "small" in request.query_params else "card.html"
        return made.render(request, name, alert=AlertView(0, messages[-1]))


def _add_login(router: APIRouter, made: Pages) -> None:
    @router.get("/login")
    def login_page(request: Request) -> Response:
        target = safe_target(request.query_params.get("next", "/"))
        if request.headers.get("sec-fetch-site") == "cross-site":
            # a link from another site comes without the cookie, which is SameSite=Strict: once more, from here
            return made.templates.TemplateResponse(request, "again.html", {"target": target})
        if made.login is None or made.login.knows(request.cookies.get(COOKIE, "")):
            return RedirectResponse(target, status_code=303)
        return made.templates.TemplateResponse(request, "login.html", {"target": target, "problem": ""})

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        if made.login is None:
            return RedirectResponse("/", status_code=303)
        address = address_of(request.scope)
        form = await _form(request)
        target = safe_target(form.get("next", "/"))
        wait = made.login.attempts.wait_seconds(address)
        if not wait and made.login.accepts(form.get("token", "")):
            answer = RedirectResponse(target, status_code=303)
            set_session(answer, made.login.begin_session(), tls=is_tls(request))
            return answer
        if not wait:
            made.login.attempts.note_failure(address)
            log.warning("login_refused", address=address)
        problem = "Too many wrong tokens. Wait a minute, then try again." if wait else "That is not the token."
        told = {"target": target, "problem": problem}
        page = made.templates.TemplateResponse(request, "login.html", told, status_code=429 if wait else 401)
        if wait:
            page.headers["Retry-After"] = too_many(wait).headers["Retry-After"]
        return page

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        if made.login is not None:
            made.login.end_session(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/login", status_code=303)
        clear_session(answer, tls=is_tls(request))
        return answer


def filter_of(camera: str, label: str, since: str, until: str) -> tuple[AlertFilter, str]:
    """Return which alerts a page's address asks for, and what is wrong with it; empty when nothing is."""
    problem, times = "", []
    for name, text in (("From", since), ("Until", until)):
        try:
            times.append(_utc(text).timestamp() if text else None)
        except (ValueError, OverflowError):  # the latter of an offset at either end of time
            times.append(None)
            problem = f"{name}: {text[:40]!r} is not a time like 2026-01-31T12:00."
    return AlertFilter(camera or None, label or None, times[0], times[1]), problem


def _utc(text: str) -> datetime:
    """Return a time of an address: UTC, or as its offset says."""
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _form_time(seconds: float | None) -> str:
    """Spell a time as the form's fields do."""
    return "" if seconds is None else _at(seconds).replace(tzinfo=None).isoformat(timespec="minutes")


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a small form, each with its first value."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _templates() -> Jinja2Templates:
    made = Jinja2Templates(directory=Path(__file__).parent / "templates")
    made.env.filters |= {
        "moment": _moment,
        "brief": _brief,
        "clock": _clock,
        "iso": _iso,
        "percent": _percent,
        "lowest": _lowest,
    }
    made.env.trim_blocks = made.env.lstrip_blocks = True
    return made


def _at(time: float | str) -> datetime:
    return datetime.fromtimestamp(time, UTC) if isinstance(time, float | int) else datetime.fromisoformat(time)


def _moment(time: float | str | None) -> str:
    """Spell a time: seconds since the epoch, or ISO 8601 as in a message."""
    return "–" if time is None else _at(time).strftime("%Y-%m-%d %H:%M:%S")


def _brief(time: float | str) -> str:
    """Spell a time of today without its date."""
    at = _at(time)
    return at.strftime("%H:%M:%S" if at.date() == datetime.now(UTC).date() else "%m-%d %H:%M")


def _clock(time: str) -> str:
    """Spell when a frame was taken, to the tenth: several lie in one second."""
    return _at(time).strftime("%H:%M:%S.%f")[:-5]


def _iso(time: float | str | None) -> str:
    return "" if time is None else _at(time).strftime("%Y-%m-%dT%H:%M:%SZ")


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _lowest(watched: Mapping[str, Threshold]) -> float:
    """Return the lowest score with which an event begins."""
    return min((threshold.on for threshold in watched.values()), default=1.0)
