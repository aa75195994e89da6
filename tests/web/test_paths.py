"""The HTTP paths are a public surface: a change of this list goes into CHANGELOG.md."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from monitor.web.app import Page, openapi_document
from monitor.web.feed import Feed
from monitor.web.headers import CONTENT_POLICY

from .test_app import Shown, fetch, get, served

ROOT = Path(__file__).parent.parent.parent
PATHS = """
GET /
GET /alerts
GET /alerts/{alert_id}
GET /alerts/{alert_id}/card
GET /api/v1/alerts
GET /api/v1/alerts/{alert_id}
GET /api/v1/cameras
GET /api/v1/cameras/{camera}
GET /api/v1/cameras/{camera}/picture.jpg
GET /api/v1/cameras/{camera}/scores
GET /api/v1/events
GET /api/v1/monitor
GET /api/v1/openapi.json
GET /api/v1/scores
GET /cameras/{camera_id}
GET /live
GET /login
GET /media/{name}
GET /metrics
GET /ready
HEAD /media/{name}
POST /login
POST /logout
"""


def routes_of(app):
    """Every method and path."""
    routers = [getattr(outer, "original_router", None) for outer in app.router.routes]
    inner = [route for router in routers if router is not None for route in router.routes]
    routes = [route for route in (*app.router.routes, *inner) if getattr(route, "methods", None)]
    found = {(method, route.path) for route in routes for method in route.methods}
    return sorted(found - {("HEAD", "/api/v1/openapi.json")})


def test_the_paths_are_these_and_only_login_and_logout_take_a_post():
    routes = routes_of(Page(Shown(), Feed()).app)
    assert [f"{method} {path}" for method, path in routes] == PATHS.split("\n")[1:-1]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_is_read_only(method):
    """Whatever is asked for; but for the login and the logout, which take a POST."""
    paths = {path for _, path in routes_of(Page(Shown(), Feed()).app)} | {"/static/style.css"}
    assert len(paths) > 20
    with served(Shown()) as address:
        for path in paths - ({"/login", "/logout"} if method == "POST" else set()):
            place = address + path.replace("{", "").replace("}", "")
            assert get(urllib.request.Request(place, method=method, data=b"x=1"))[0] == 405, path


def test_the_committed_openapi_document_is_the_one_the_code_makes():
    committed = json.loads((ROOT / "schemas/openapi.v1.json").read_text())
    assert committed == openapi_document(), "run: monitor schema openapi > schemas/openapi.v1.json"


def test_every_answer_has_the_security_headers():
    with served(Shown(), token="0123456789abcdef") as address:
        for path in ("/", "/login", "/api/v1/cameras", "/metrics", "/static/style.css", "/static/none", "/nothing"):
            _, headers, _ = fetch(address, path)
            policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
            assert policy == CONTENT_POLICY
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert not [source for source in policy.values() if "unsafe" in source or "http" in source or "*" in source]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static/") else "no-store")
            assert "Server" not in headers or "uvicorn" not in headers["Server"]


def test_pages_have_no_script_or_style_of_their_own_and_nothing_from_elsewhere():
    """The content policy would keep it from working; this says so before a browser does."""
    for path in (ROOT / "monitor/web/templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert " style=" not in text, path.name
        assert "<style" not in text, path.name
        assert " onclick=" not in text, path.name
        assert "http://" not in text.replace("http://www.w3.org", ""), path.name
        assert "https://" not in text, path.name
