"""Uvicorn's HTTP protocol with limits on slow clients, enforced before a request reaches the application."""

import socket
from typing import Any

from prometheus_client.multiprocess import mark_process_dead
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

MAX_HEADER_BYTES = 32 * 1024
CLIENT_TIMEOUT = 10
"""Seconds for a client to send the headers, and after the response to send the rest of an unread body."""
MAX_CONNECTIONS = 1000


class Protocol(HttpToolsProtocol):
    """Closes idle connections and those of clients that send or read too slowly."""

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.in_headers, self.header_bytes = True, 0
        self.timer = self.loop.call_later(CLIENT_TIMEOUT, transport.abort)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # for clients that never read the response
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_TIMEOUT * 1000)
        if len(self.connections) > MAX_CONNECTIONS:
            self.reject(b"503 Service Unavailable\r\nretry-after: 1")

    def start_timer(self) -> None:
        """Abort the connection after `CLIENT_TIMEOUT`, unless the timer is canceled before."""
        if self.timer.cancelled():
            self.timer = self.loop.call_later(CLIENT_TIMEOUT, self.transport.abort)

    def reject(self, status: bytes) -> None:
        """Respond without the application, and close the connection."""
        self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    @override
    def data_received(self, data: bytes) -> None:
        if self.in_headers:
            self.header_bytes += len(data)
            self.start_timer()
        super().data_received(data)
        if self.in_headers and self.header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.reject(b"431 Request Header Fields Too Large")

    @override
    def on_headers_complete(self) -> None:
        self.timer.cancel()  # the application has its own timeouts for the body
        self.in_headers = False
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        self.timer.cancel()
        self.in_headers, self.header_bytes = True, 0
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A response sent before the whole body arrived can only be read by a client that may send the rest.
        if not self.in_headers and not self.transport.is_closing():
            self.start_timer()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)


class Workers(Multiprocess):
    """Worker processes; one that dies is replaced."""

    @override
    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    @override
    def terminate_all(self) -> None:
        super().terminate_all()
        for listening in self.sockets:  # connections accepted from here on would not be answered
            listening.close()
