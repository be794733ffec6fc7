"""A server that counts what it is sent and a client that sends much.

upload.py serve PORT            answers each connection with the number of bytes it got
upload.py send HOST PORT BYTES [SECONDS]  fails unless all of them arrived; in pieces over so long
upload.py mss HOST PORT         the largest segment that HOST announces
upload.py rate LOG              the most frames a second that a director's JSON lines show
"""
import json
import socket
import sys
import threading
import time


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


def send(host, port, size, seconds=0):
    pieces = max(10 * seconds, 1)
    with socket.create_connection((host, port), timeout=10) as connection:
        for piece in range(pieces):
            connection.sendall(b"x" * (size * (piece + 1) // pieces - size * piece // pieces))
            time.sleep(seconds / pieces)
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(100) or 0) == size


def mss(host, port):
    with socket.create_connection((host, port), timeout=10) as connection:
        # What is left of it beside the timestamps, which take 12 bytes (RFC 7323).
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) + 12


def rate(log):
    with open(log) as lines:
        counts = [json.loads(line)["forwarded"] for line in lines if line.startswith("{")]
    print("at most", max(b - a for a, b in zip(counts, counts[1:])), "frames forwarded in a second")


if sys.argv[1] == "rate":
    sys.exit(rate(sys.argv[2]))
if sys.argv[1] == "mss":
    sys.exit(print(mss(sys.argv[2], int(sys.argv[3]))))
if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
sys.exit(0 if send(sys.argv[2], *map(int, sys.argv[3:])) else 1)
