"""A server that counts what it is sent and a client that sends much.

upload.py serve PORT            answers each connection with the number of bytes it got
upload.py send HOST PORT BYTES  fails unless all of them arrived
"""
import socket
import sys
import threading


def count(connection):
    with connection:
        total = 0
        while chunk := connection.recv(65536):
            total += len(chunk)
        connection.sendall(str(total).encode())


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=count, args=(listener.accept()[0],), daemon=True).start()


def send(host, port, size):
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(b"x" * size)
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(100) or 0) == size


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
sys.exit(0 if send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])) else 1)
