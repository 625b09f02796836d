"""The guard itself: an outside address is refused, here and in a program that a test starts."""

import socket

import pytest

# A documentation address (RFC 5737): nothing answers there, so that without the guard this would hang, not pass.
OUTSIDE = ("192.0.2.1", 80)


def test_outside_addresses_are_refused():
    with pytest.raises(PermissionError, match="no network"):
        socket.create_connection(OUTSIDE, timeout=1)
    with pytest.raises(PermissionError, match="no network"):
        socket.getaddrinfo("example.org", 80)


def test_subprocesses_are_guarded_too(run_python):
    done = run_python("-c", f"import socket; socket.create_connection({OUTSIDE!r}, timeout=1)")
    assert "PermissionError: a test tried to reach '192.0.2.1'" in done.stderr


def test_loopback_works():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()
