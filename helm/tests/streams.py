"""Connections that are passed on."""

import contextlib
import socket
import threading


def relay(client, address):
    """Bytes in both directions, until one side ends."""
    try:
        server = socket.create_connection(address, timeout=5)
    except OSError:
        client.close()
        return
    server.settimeout(None)
    back = threading.Thread(target=carry, args=[server, client], daemon=True)
    back.start()
    carry(client, server)
    back.join()
    client.close()
    server.close()


def carry(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
