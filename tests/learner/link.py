"""A TCP connection that can break: between a program and a server, as bad networks and busy servers are."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_SLOW_SECONDS = 0.5
"""For which a slow link keeps each piece of 64 kB."""
_FULL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Link:
    """Listens on ``port`` of the loopback address, or of another one, and passes all on to a server.

    ``mode``: "open"; "cut", which ends connections and takes no more; "stalled", which takes them and passes nothing
    on; "slow", which passes on a piece at a time; or "full", which refuses what HTTP puts, as a store without room.
    """

    def __init__(self, host: str, port: int, at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.mode = "open"
        self.puts = 0
        """Requests of HTTP that put something, so far."""
        self._server = (host, port)
        self._listener = socket.create_server(at)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Link:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.mode == "cut":
                return
            with socket.create_connection(self._server) as server:
                back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
                back.start()
                self._pass_on(client, server)
                back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.mode == "stalled":
                    time.sleep(0.05)
                if self.mode == "cut":
                    break
                if self.mode == "slow":
                    time.sleep(_SLOW_SECONDS)
                if self.mode == "full" and data.startswith((b"PUT ", b"POST ")):
                    source.sendall(_FULL)
                    break
                self.puts += data.startswith(b"PUT ")
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
