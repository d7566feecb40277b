"""An HTTP server for this machine, which can be stopped without cutting off a request."""

import socket
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, cast

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST = "127.0.0.1"


class _Connection(WSGIRequestHandler):
    """One request: werkzeug closes every connection after its response."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the gateway logs a line for each request; the database's requests are of no interest."""


class Server(ThreadedWSGIServer):
    """A WSGI application on a port, with a thread for each request."""

    daemon_threads = False  # server_close, which ends serve_forever, waits for the requests' threads

    def __init__(self, app: "WSGIApplication", port: int, host: str = HOST) -> None:
        """Listen on this port, 0 for a free one, of this address only. Raises `OSError` if the port cannot be used."""
        with socket.create_server((host, port), backlog=128) as listening:
            # werkzeug listens on a duplicate. If it opened the port itself, it would print its own words about a busy one.
            super().__init__(host, port, app, _Connection, fd=listening.fileno())
        self._open: set[socket.socket] = set()
        self._thread = Thread(target=self.serve_forever, args=(0.1,))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Accept no more connections, finish the requests that have arrived, and close connections that have sent none."""
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):  # closed in the meantime
                connection.shutdown(socket.SHUT_RD)
        self._thread.join()

    def process_request(self, request: "socket.socket | tuple[bytes, socket.socket]", client_address: object) -> None:
        self._open.add(cast("socket.socket", request))
        super().process_request(request, client_address)

    def shutdown_request(self, request: "socket.socket | tuple[bytes, socket.socket]") -> None:
        self._open.discard(cast("socket.socket", request))
        super().shutdown_request(request)
