"""A network between a site and the server that can be cut, slowed or made to lose everything."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 16_384


class Relay:
    """Passes TCP connections on to ``target``; what it does with them can be changed any time."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.cut_upload_after: int | None = None
        """Bytes of one connection's upload after which it is cut, once."""
        self.on_upload: tuple[int, Callable[[int], None]] | None = None
        """Bytes of one connection's upload after which, once, it waits for a function, which is
        given the port from which the connection comes."""
        self.damage_download = False
        """Whether one byte of a download of many is changed, once."""
        self.damaged = 0
        self.down = False
        self.uploaded = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Cut all connections there are."""
        with self._lock:
            for s in self._open:
                with suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        passed = 0
        try:
            while chunk := source.recv(_CHUNK):
                passed += len(chunk)
                if up:
                    self.uploaded += len(chunk)
                    if self.cut_upload_after is not None and passed > self.cut_upload_after:
                        self.cut_upload_after = None
                        self.cuts += 1
                        break
                    if self.on_upload is not None and passed > self.on_upload[0]:
                        hook, self.on_upload = self.on_upload[1], None
                        hook(source.getpeername()[1])
                elif self.damage_download and len(chunk) == _CHUNK:
                    self.damage_download = False
                    self.damaged += 1
                    chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
                while self.down:
                    time.sleep(0.1)
                sink.sendall(chunk)
        except OSError:
            pass
        for s in (source, sink):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
