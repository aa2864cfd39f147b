"""A spy on a connection: a relay that records every byte of both directions."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

CHUNK = 32
"""Bytes of a secret that count as found; longer ones may be cut by frames."""


class Relay:
    """Listens at `place` and passes everything on to `target`; a context manager.

    A place is the path of a Unix socket, or a port of this machine.
    """

    def __init__(self, place: Path | int, target: Path | int) -> None:
        self._target = target
        self._listener = socket.socket(_family(place))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(_address(place))
        self._listener.listen()
        self._recorded: list[bytearray] = []
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def saw(self, secret: bytes, *, whole: bool = False) -> bool:
        """Whether any `CHUNK` bytes of `secret` crossed, or all of a shorter one.

        Chunks of few distinct bytes, such as zeros, are in much else and are not looked for; a
        secret of such is looked for as a `whole`.
        """
        recorded = [bytes(each) for each in self._recorded]
        if whole:
            return any(secret in each for each in recorded)
        chunks = [secret[i : i + CHUNK] for i in range(0, max(len(secret) - CHUNK, 0) + 1, CHUNK)]
        telling = [chunk for chunk in chunks if len(set(chunk)) >= min(len(secret), 8)]
        assert telling, f"{secret[:CHUNK]!r} tells nothing"
        return any(chunk in each for chunk in telling for each in recorded)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(_family(self._target))
            try:
                far.connect(_address(self._target))
            except OSError:  # it may come back
                near.close()
                continue
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                record = bytearray()
                self._recorded.append(record)
                threading.Thread(target=_pump, args=(source, sink, record), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    try:
        while data := source.recv(1 << 16):
            record += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _family(place: Path | int) -> socket.AddressFamily:
    return socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET


def _address(place: Path | int) -> str | tuple[str, int]:
    return str(place) if isinstance(place, Path) else ("127.0.0.1", place)
