"""Who does not know the token sees nothing but probes and metrics; who does stays logged in, until he logs out."""

from __future__ import annotations

import http.client
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.web import login as login_module
from monitor.web.app import Page
from monitor.web.feed import Feed
from monitor.web.login import Login, safe_target

from .test_app import Shown, served
from .test_paths import routes_of

TOKEN = "open-sesame-0123456789"
PAGES = ("/", "/alerts", "/cameras/yard", "/alerts/0d9c0f4e-6a64-5a3c-9a3e-2f1a7c0b9d11")
PROGRAMS = ("/api/v1/cameras", "/api/v1/events", "/api/v1/openapi.json", "/media/x.jpg", "/nothing")


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def address(shown):
    with served(shown, token=TOKEN) as address:
        yield address.removeprefix("http://")


def ask(address, path, *, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def log_in(address, token=TOKEN, target="/", **headers):
    form = urllib.parse.urlencode({"token": token, "next": target})
    return ask(address, "/login", method="POST", body=form, **headers)


def cookie_of(headers):
    return headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics", "/login", "/static/style.css"])
def test_probes_metrics_and_the_login_are_open(path, address):
    assert ask(address, path)[0] == 200


@pytest.mark.parametrize("path", PAGES)
def test_a_browser_without_a_session_is_sent_to_the_login_and_back(path, address):
    status, headers, _ = ask(address, path, Accept="text/html")
    assert status == 303
    assert headers["Location"] == ("/login" if path == "/" else f"/login?next={path}")
    status, headers, _ = log_in(address, target=path)
    assert (status, headers["Location"]) == (303, path)


@pytest.mark.parametrize("path", [*PROGRAMS, *PAGES])
def test_a_program_without_the_token_is_refused(path, address):
    status, headers, text = ask(address, path)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert "token" in json.loads(text)["detail"]
    assert ask(address, path, Authorization=f"Bearer {TOKEN}x")[0] == 401


def test_every_route_but_the_open_ones_needs_the_token(address):
    """Whatever is added later is closed until somebody opens it."""
    for method, path in routes_of(Page(Shown(), Feed(), token=TOKEN).app):
        status = ask(address, path.replace("{", "").replace("}", ""), method=method)[0]
        is_open = path in login_module.OPEN_PATHS
        assert (status == 401) == (not is_open or (path == "/login" and method == "POST")), (method, path)


def test_a_program_with_the_token_is_answered(address):
    assert ask(address, "/api/v1/cameras", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(address, "/api/v1/cameras", Authorization=f"bearer {TOKEN}")[0] == 200
    assert ask(address, "/api/v1/cameras", Authorization=f"Basic {TOKEN}")[0] == 401


def test_a_browser_logs_in_stays_and_logs_out(address):
    status, headers, _ = log_in(address)
    assert status == 303
    attributes = {part.strip().lower() for part in headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert "secure" not in attributes
    cookie = cookie_of(headers)
    assert TOKEN not in headers["Set-Cookie"]
    assert ask(address, "/", Cookie=cookie)[0] == 200
    assert "Log out" in ask(address, "/", Cookie=cookie)[2]
    status, headers, _ = ask(address, "/logout", method="POST", Cookie=cookie)
    assert (status, headers["Location"]) == (303, "/login")
    assert "max-age=0" in headers["Set-Cookie"].lower()
    assert ask(address, "/api/v1/cameras", Cookie=cookie)[0] == 401, "a stolen cookie is worth nothing after the logout"


def test_behind_tls_the_cookie_is_for_tls_alone(address):
    _, headers, _ = log_in(address, X_Forwarded_Proto="https")
    assert "secure" in headers["Set-Cookie"].lower()


def test_a_wrong_token_is_refused_and_shown_nowhere(address, capfd):
    status, headers, text = log_in(address, "wrong-token-987654321")
    assert status == 401
    assert headers.get("Set-Cookie") is None
    assert "That is not the token." in text
    assert "wrong-token" not in text
    assert "wrong-token" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("how", ["form", "bearer"])
def test_who_guesses_has_to_wait(how, address):
    def guess(token):
        if how == "form":
            return log_in(address, token)
        return ask(address, "/api/v1/cameras", Authorization=f"Bearer {token}")

    statuses = [guess(f"guess-{number}")[0] for number in range(login_module.MOST_FAILURES + 1)]
    assert statuses == [401] * login_module.MOST_FAILURES + [429]
    status, headers, _ = guess(TOKEN)
    assert status == 429
    assert 0 < int(headers["Retry-After"]) <= 61


def test_the_wait_is_over_after_a_minute(monkeypatch):
    attempts = login_module.Attempts()
    now = [1000.0]
    monkeypatch.setattr(login_module.time, "monotonic", lambda: now[0])
    for _ in range(login_module.MOST_FAILURES):
        attempts.note_failure("192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1") == pytest.approx(60)
    assert attempts.wait_seconds("192.0.2.2") == 0
    now[0] += 61
    assert attempts.wait_seconds("192.0.2.1") == 0
    attempts.note_failure("192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1") == 0


@given(st.text(max_size=200))
def test_a_made_up_cookie_is_not_a_session(text):
    assert not Login(TOKEN).knows(text)


def test_a_session_is_of_this_token_and_of_this_time(monkeypatch):
    session = Login(TOKEN).begin_session()
    assert Login(TOKEN).knows(session), "a restart leaves people logged in"
    assert not Login(TOKEN + "!").knows(session)
    end, rest = session.split(".", 1)
    assert not Login(TOKEN).knows(f"{int(end) + 1}.{rest}")
    later = login_module.time.time() + login_module.SESSION_SECONDS + 1
    monkeypatch.setattr(login_module.time, "time", lambda: later)
    assert not Login(TOKEN).knows(session)


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "", "/login?next=/", "/a\nb"],
)
def test_the_login_leads_to_no_other_site(target, address):
    assert safe_target(target) == "/"
    assert log_in(address, target=target)[1]["Location"] == "/"


def test_a_link_from_another_site_is_followed_with_the_cookie(address):
    """SameSite=Strict keeps it from the first request; the page asks once more by itself, which brings it."""
    status, _, text = ask(address, "/login?next=/alerts", Sec_Fetch_Site="cross-site")
    assert status == 200
    assert 'content="0; url=/login?next=/alerts"' in text
    cookie = cookie_of(log_in(address)[1])
    status, headers, _ = ask(address, "/login?next=/alerts", Cookie=cookie, Sec_Fetch_Site="same-origin")
    assert (status, headers["Location"]) == (303, "/alerts")


def test_without_a_token_another_name_for_this_machine_is_refused(shown):
    with served(shown) as address:
        here = address.removeprefix("http://")
        assert ask(here, "/api/v1/cameras")[0] == 200
        assert ask(here, "/api/v1/cameras", Host="localhost:8080")[0] == 200
        assert ask(here, "/api/v1/cameras", Host="evil.example")[0] == 421
        assert ask(here, "/metrics", Host="monitor.example")[0] == 200


def test_a_form_that_is_too_large_is_a_wrong_token(address):
    assert ask(address, "/login", method="POST", body="token=" + "x" * 100_000)[0] == 401


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(login_module.hmac, "compare_digest", lambda one, two: compared.append((one, two)) or one == two)
    assert Login(TOKEN).accepts(TOKEN)
    assert not Login(TOKEN).accepts("ünwrong")
    assert len(compared) == 2
