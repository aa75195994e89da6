"""Requests in; those of people and programs that know the token through, the others turned away.

A browser that has sent the token once gets a cookie: the time it ends and a random part, signed with a key made of the
token (HMAC-SHA256, RFC 2104). So a restart leaves people logged in, and another token logs them out. Programs send
`Authorization: Bearer` (RFC 6750). The token itself never stands in a cookie, an address or a log.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "monitor_session"
SESSION_SECONDS = 7 * 86_400
MOST_FAILURES, FAILURES_SECONDS = 10, 60.0
"""So many wrong tokens from one address in this time, and it has to wait for the rest of it."""
MOST_ADDRESSES = 4096
MOST_LOGGED_OUT = 10_000
OPEN_PATHS = frozenset({"/live", "/ready", "/metrics", "/login", "/logout"})
OPEN_FOLDER = "/static/"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
SAFE_TARGET = re.compile(r"/(?![/\\])[^\x00-\x1f\\]*")


class Attempts:
    """Counts wrong tokens by the address they come from. Any thread may use it."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, address: str) -> float:
        """Return how long an address has to wait before it may try again."""
        with self._lock:
            began, count = self._failures.get(address, (0.0, 0))
        left = began + FAILURES_SECONDS - time.monotonic()
        return left if count >= MOST_FAILURES and left > 0 else 0.0

    def note_failure(self, address: str) -> None:
        """Count a wrong token."""
        now = time.monotonic()
        with self._lock:
            began, count = self._failures.pop(address, (now, 0))
            if now - began > FAILURES_SECONDS:
                began, count = now, 0
            self._failures[address] = began, count + 1
            if len(self._failures) > MOST_ADDRESSES:
                self._failures.popitem(last=False)


class Login:
    """Knows the token, and the sessions that were begun with it. Any thread may use it.

    Args:
        token: what people and programs have to know.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"monitor session", hashlib.sha256)
        self._logged_out: OrderedDict[str, None] = OrderedDict()
        self.attempts = Attempts()

    def accepts(self, token: str) -> bool:
        """Whether this is the token; takes as long for any wrong one."""
        return hmac.compare_digest(token.encode(errors="replace"), self._token)

    def begin_session(self) -> str:
        """Return the value of a new cookie."""
        told = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(12)}"
        return f"{told}.{self._signature(told)}"

    def knows(self, session: str) -> bool:
        """Whether a cookie's value is one of ours, not over, and not logged out."""
        told, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(told).encode()):
            return False
        return int(told.partition(".")[0]) > time.time() and session not in self._logged_out

    def end_session(self, session: str) -> None:
        """Take a cookie's value no longer."""
        if self.knows(session):
            self._logged_out[session] = None
            if len(self._logged_out) > MOST_LOGGED_OUT:
                self._logged_out.popitem(last=False)

    def _signature(self, told: str) -> str:
        return hmac.new(self._key, told.encode(), hashlib.sha256).hexdigest()


class Gate:
    """Lets a request pass to the application, or answers it.

    Open to everybody are the probes, the metrics, the style sheets and the login itself. Everything else needs the
    token. Without one, which the configuration allows on this machine alone, a request has to name this machine as its
    host: a page of another site must not reach it under a name of its own (DNS rebinding).

    Args:
        app: the application.
        login: knows the token; None: there is none.
        host: the address that is listened on.
    """

    def __init__(self, app: ASGIApp, *, login: Login | None, host: str) -> None:
        self._app = app
        self._login = login
        self._names = {*LOCAL_NAMES, host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        path: str = scope["path"]
        request = Request(scope)
        headers = request.headers
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return None
        if self._login is None:
            named = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
            known = named in self._names or headers.get("host", "") in self._names
            return None if known else JSONResponse({"detail": "This monitor has no such name."}, status_code=421)
        if self._login.knows(request.cookies.get(COOKIE, "")):
            return None
        given = bearer_of(headers)
        if given is not None:
            return self._judged(given, address_of(scope))
        if _wants_page(scope, headers):
            query = scope["query_string"].decode("latin-1")
            target = path + (f"?{query}" if query else "")
            return RedirectResponse(f"/login?next={quote(target)}" if target != "/" else "/login", status_code=303)
        return unauthorized()

    def _judged(self, given: str, address: str) -> Response | None:
        """Return the answer to a program's token; None where it is right."""
        assert self._login is not None  # noqa: S101 - asked for above
        wait = self._login.attempts.wait_seconds(address)
        if wait:
            return too_many(wait)
        if self._login.accepts(given):
            return None
        self._login.attempts.note_failure(address)
        return unauthorized()


def unauthorized() -> Response:
    """Return the answer to who does not know the token."""
    detail = {"detail": "A token is needed: Authorization: Bearer …"}
    return JSONResponse(detail, status_code=401, headers={"WWW-Authenticate": 'Bearer realm="monitor"'})


def too_many(wait_seconds: float) -> Response:
    """Return the answer to who has tried too often."""
    headers = {"Retry-After": str(int(wait_seconds) + 1)}
    return JSONResponse({"detail": "Too many wrong tokens; wait a minute."}, status_code=429, headers=headers)


def bearer_of(headers: Headers) -> str | None:
    """Return the token that a program sends; None where it sends none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def address_of(scope: Scope) -> str:
    """Return where a request comes from; behind a proxy on this machine, where that says it does."""
    return scope["client"][0] if scope.get("client") else ""


def safe_target(target: str) -> str:
    """Return where to go after the login: a path of this page, never another site."""
    return target if SAFE_TARGET.fullmatch(target) and not target.startswith("/log") else "/"


def is_tls(request: Request) -> bool:
    """Whether the browser came by TLS, to us or to the proxy before us; who lies about it harms only himself."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return request.url.scheme == "https" or forwarded == "https"


def set_session(response: Response, session: str, *, tls: bool) -> None:
    """Give a browser its cookie."""
    response.set_cookie(COOKIE, session, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=tls)


def clear_session(response: Response, *, tls: bool) -> None:
    """Take a browser's cookie away."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=tls)


def _wants_page(scope: Scope, headers: Headers) -> bool:
    """Whether a person's browser asks for a page."""
    return scope["method"] in {"GET", "HEAD"} and "text/html" in headers.get("accept", "")
