"""The HTTP server waitress, with a stop that lets requests finish."""

import logging
import socket
from threading import Thread
from typing import TYPE_CHECKING

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# It warns when requests queue, as they should here.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)

HOST = "127.0.0.1"
MAX_BODY = 64 * 1024 * 1024
"""Bytes of a body that the server buffers. The application's own limit is lower."""


class Server:
    """A WSGI application on a port. It gets complete requests, one at a time, however slowly they arrive."""

    def __init__(self, app: "WSGIApplication", port: int, host: str = HOST) -> None:
        """Listen on this port of this address; 0 is any free port. Raises `OSError` if the port cannot be used."""
        listening = socket.create_server((host, port), backlog=128)
        self.port: int = listening.getsockname()[1]
        self._connections: dict[int, object] = {}
        self._server = create_server(
            app,
            map=self._connections,
            sockets=[listening],
            threads=1,
            max_request_body_size=MAX_BODY,
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
            ident=None,
        )
        self._stopping = False
        self._thread = Thread(target=self._serve)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Accept no more connections or requests, finish those that have arrived, and close every connection."""
        # The server's own thread runs `_end`, and closes the trigger when it stops. The lock keeps it from doing so before the
        # trigger has been pulled.
        trigger = self._server.trigger
        with trigger.lock:
            trigger.pull_trigger()
            trigger.thunks.append(self._end)
        self._thread.join()

    def _end(self) -> None:
        self._stopping = True

    def _serve(self) -> None:
        while not self._stopping:
            self._wait()
        self._server.accepting = False
        # A connection is read while it has at most this many requests: from now on, never.
        self._server.adj.channel_request_lookahead = -1
        while any(each.requests or each.total_outbufs_len for each in self._server.active_channels.values()):
            self._wait()
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._connections)

    def _wait(self) -> None:
        """Handle the next events of the sockets."""
        wasyncore.loop(timeout=30, map=self._connections, count=1)
