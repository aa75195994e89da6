"""Settings in; kafka-python's network client out, whose failures close their sockets, end in time and keep their cause.

kafka-python 3.0 leaves sockets of failed connections open, waits for ever for a silent TLS server, tells the causes of
failures to its log alone, and drops the answer of a broker that refuses us and hangs up.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.AuthorizationError,
)


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # the library has no types
    """Connects as the library does, and closes the socket where that fails, which the library forgets.

    The library chooses this class by the scheme of its setting `proxy_url`.
    """

    SCHEMES = ("direct",)

    async def connect(self, net: Any, addrinfo: Any, socket_options: Any = (), timeout_at: float | None = None) -> Any:
        """Return a connected socket."""
        family, kind, protocol, _, address = addrinfo
        connecting = self.socket(family, kind, protocol)
        try:
            connecting.setblocking(False)
            for option in socket_options:
                connecting.setsockopt(*option)
            return await self.sock_connect(net, connecting, address, timeout_at=timeout_at)
        except BaseException:  # also when the library drops the attempt: a coroutine's end is no Exception
            connecting.close()
            raise


class _TcpTransport(KafkaTCPTransport):  # type: ignore[misc]  # the library has no types
    """Hands on what came just before the other side hung up, which the library throws away.

    A broker that refuses a password answers and hangs up; without the answer it looks as if the network had failed.
    """

    def _sock_recv(self) -> tuple[bytes, BaseException | None]:
        received, error = super()._sock_recv()
        return received, None if received else error


class _TlsTransport(KafkaSSLTransport):  # type: ignore[misc]  # the library has no types
    """The same through TLS."""

    def _sock_recv(self) -> tuple[bytes, BaseException | None]:
        received, error = super()._sock_recv()
        return received, None if received else error


class ConnectionManager(KafkaConnectionManager):  # type: ignore[misc]  # the library has no types
    """Connects as the library does; closes what failed, bounds the TLS handshake, and keeps the cause of a failure.

    The library leaves the socket of a failed handshake open and waits for ever for a silent one, tells causes to its
    log alone, and goes on asking a broker that has refused our password, which may lock the account.
    """

    failure: BaseException | None = None
    """Why the last connection failed; not that our patience ended during the next."""

    def close(self, node_id: Any = None, timeout_ms: float | None = None) -> None:
        """Close one connection, or all; at once, whatever it had yet to write."""
        for conn in list(self._conns.values()) if node_id is None else ():
            conn.close(kafka_errors.KafkaConnectionError("closed by us"))
        super().close(node_id, timeout_ms)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        options = {"proxy_url": self.config["proxy_url"], "timeout_at": timeout_at}
        connected = await create_connection(self._net, node.host, node.port, self.config["socket_options"], **options)
        give_up = None
        try:
            if timeout_at is not None:
                give_up = self._net.call_at(timeout_at, lambda: _shut(connected))
            if self.ssl_enabled:
                named = {key: value for key, value in self.config.items() if key.startswith("ssl_")}
                transport = _TlsTransport(self._net, connected, host=node.host, **named)
                connected = transport._sock
            else:
                transport = _TcpTransport(self._net, connected, host=node.host)
            await transport.handshake()
        except OSError as exc:  # TLS errors among them
            connected.close()
            reason = "no answer to the TLS handshake" if _passed(timeout_at) else f"TLS: {exc}"
            raise kafka_errors.KafkaConnectionError(reason) from exc
        except BaseException:  # also when the library drops the attempt: a coroutine's end is no Exception
            connected.close()
            raise
        finally:
            if give_up is not None:
                self._net.cancel(give_up)
        return transport

    async def _connect(self, node: Any, conn: Any, timeout_at: float | None = None, **options: Any) -> None:
        await super()._connect(node, conn, timeout_at=timeout_at, **options)
        if conn.init_future.failed() and (self.failure is None or not _passed(timeout_at)):
            self.failure = conn.init_future.exception
        if isinstance(self.failure, REFUSALS):
            self.close()


def network_client(**settings: Any) -> Any:
    """Make the library's network client, with our manager in it."""
    net = NetworkSelector(**settings)
    return KafkaNetClient(net=net, manager=ConnectionManager(net, **settings))


def _passed(moment: float | None) -> bool:
    return moment is not None and time.monotonic() >= moment


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not SSLSocket's, which drops the handshake's state
