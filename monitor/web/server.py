"""Owns the thread that serves the page: an address in, answers out, a stop within its deadline."""

from __future__ import annotations

import errno
import socket
import threading

import uvicorn

from monitor.deadline import Deadline
from monitor.errors import InputInvalid, StopTimedOut
from monitor.web.app import Page


class WebServer:
    """An HTTP server in a thread.

    Args:
        page: what it serves.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
    """

    def __init__(self, page: Page, *, host: str, port: int) -> None:
        self._page = page
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen and serve; return the address.

        Raises:
            InputInvalid: the address cannot be listened on.
        """
        self._socket = listen(self._host, self._port)
        config = uvicorn.Config(
            self._page.app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True
        )
        self._thread.start()
        port = self._socket.getsockname()[1]
        return f"http://{_bracketed(self._host)}:{port}"

    def stop(self, deadline: Deadline) -> None:
        """Close every connection and end the thread.

        Raises:
            StopTimedOut: the thread did not end in time.
        """
        if self._server is None or self._thread is None:
            return
        self._page.close()
        self._server.should_exit = True
        self._thread.join(deadline.remaining(at_most=1.0))
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(deadline.remaining())
        if self._socket is not None:
            self._socket.close()
        if self._thread.is_alive():
            raise StopTimedOut("web did not stop in time")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputInvalid: the address cannot be listened on; it names the key of the configuration.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise InputInvalid(
                "http.port", f"{port} is taken by another program; stop it or choose another port"
            ) from exc
        if exc.errno == errno.EACCES:
            raise InputInvalid("http.port", f"{port} may not be listened on; choose a port above 1023") from exc
        raise InputInvalid("http.host", f"{host} cannot be listened on: {exc.strerror or exc}") from exc
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
