"""Uvicorn's HTTP, with limits on clients that the application does not get to see."""

import socket
from typing import Any

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

HEAD = 32 * 1024  # bytes of a request before its body, at most
PATIENCE = 10
"""Seconds that a client has for them; and, once it has its answer, for what is left of a body that nobody reads."""
CONNECTIONS = 1000  # open at a time, at most


class Protocol(HttpToolsProtocol):
    """Closes connections that send no request, send it drop by drop, or do not take their answer."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.in_head, self.head = True, 0
        self.timer = self.loop.call_later(PATIENCE, transport.abort)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # for whoever sends, but never reads
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PATIENCE * 1000)
        if len(self.connections) > CONNECTIONS:
            self.refuse(b"503 Service Unavailable\r\nretry-after: 1")

    def wait(self) -> None:
        """Close the connection unless the client does its part, which cancels the timer, in time."""
        if self.timer.cancelled():
            self.timer = self.loop.call_later(PATIENCE, self.transport.abort)

    def refuse(self, status: bytes) -> None:
        """Answer without the application, and close."""
        self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Count what comes before a body."""
        if self.in_head:
            self.head += len(data)
            self.wait()
        super().data_received(data)
        if self.in_head and self.head > HEAD and not self.transport.is_closing():
            self.refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """From here on the application has its own limits."""
        self.timer.cancel()
        self.in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next request may follow."""
        self.timer.cancel()
        self.in_head, self.head = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Whoever is answered early may send the rest, so that it gets to read the answer, but not for ever."""
        super().on_response_complete()
        if not self.in_head and not self.transport.is_closing():
            self.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.timer.cancel()
        super().connection_lost(exc)


class Workers(Multiprocess):
    """Several processes that answer; one that dies is replaced."""

    def keep_subprocess_alive(self) -> None:
        """Replace those that died, and count no longer what they had in work."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def terminate_all(self) -> None:
        """Let them end, and take no further connections, which nobody would answer."""
        super().terminate_all()
        for listening in self.sockets:
            listening.close()
