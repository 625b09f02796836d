"""Python imports this at start-up wherever this folder is on the path: no test, and no program that a test starts, reaches the network."""

import sys

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


def _refuse(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a string is a Unix socket's
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host and not host.startswith(_LOOPBACK) and host != _own_name():
        raise PermissionError(f"a test tried to reach {host!r}: tests use no network")


def _own_name() -> str:
    import socket

    return socket.gethostname()


sys.addaudithook(_refuse)
