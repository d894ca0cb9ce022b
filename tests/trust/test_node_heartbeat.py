"""Flower's node goes on after a server's error, and ends where the server does not know it."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx

from edge_client.flower_node import PatientHeartbeat


def test_an_error_of_the_server_is_a_beat_that_failed() -> None:
    """A real server that answers 500 twice, as one whose disk is full, and then 200."""
    answers = [500, 500, 200]
    asked: list[int] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(answers[min(len(asked), 2)])
            self.send_response(asked[-1])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def beat() -> bool:
        httpx.get(f"http://127.0.0.1:{server.server_port}/").raise_for_status()
        return True

    heart = PatientHeartbeat(beat)
    heart.start()
    give_up = time.monotonic() + 20
    while 200 not in asked:
        assert time.monotonic() < give_up, asked
        time.sleep(0.05)
    assert heart.is_running
    heart.stop()
    server.shutdown()


def test_the_process_ends_where_the_server_does_not_know_the_node() -> None:
    program = (
        "import time; from edge_client.flower_node import PatientHeartbeat\n"
        "def beat(): raise RuntimeError('not recognized')\n"
        "PatientHeartbeat(beat).start(); time.sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1 and "the heartbeat ended" in done.stdout
