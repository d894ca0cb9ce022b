"""Flower's SuperNode for months: it neither gives up on a network nor lives on without one.

SuperNode 1.41 takes a connection that is cut during the TLS handshake, as a restarting proxy or a
firewall cuts it, for a certificate that does not fit, and gives up. Its main thread then ends with
an error, but the thread of its local API keeps the process alive, which does nothing from then on.
Here such a connection is tried again as any other, and when the main thread ends the process
does; `fedqana client start` starts it again.

Its heartbeat is a thread that ends for good at any answer but the ones it knows, such as the 500 of
a server whose disk is full; the site would be taken for offline from then on. Here that is a beat
that failed.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli.flower_supernode import flower_supernode

from edge_client.coordinator import reason_of

_FAILED = 1
_TELL_SECONDS = 120.0
_flowers_own = fleet_http_connection.make_simple_http_retry_invoker


def is_cut(error: Exception) -> bool:
    """Whether a connection was cut, as against a certificate that is not accepted."""
    return isinstance(error, httpx.TransportError) and "certificate" not in str(error).lower()


def patient_invoker() -> Any:
    """Flower's retries, which go on after a TLS handshake that was cut."""
    invoker = _flowers_own()
    gives_up = invoker.should_giveup
    told = 0.0

    def should_give_up(error: Exception) -> bool:
        nonlocal told
        if not is_cut(error):
            return bool(gives_up(error))
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            print(f"WARNING: the server is out of reach: {reason_of(error)}", flush=True)
        return False

    invoker.should_giveup = should_give_up
    return invoker


class PatientHeartbeat(HeartbeatSender):
    """Flower's heartbeat, which a server's error delays and does not end.

    Where the server refuses the node or does not know it, the process ends to begin anew.
    """

    def __init__(self, heartbeat_fn: Callable[[], bool]) -> None:
        def beat() -> bool:
            try:
                return heartbeat_fn()
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status == httpx.codes.UNAUTHORIZED:  # Flower has asked the process to end
                    raise
                print(f"WARNING: the server did not take a heartbeat (HTTP {status})", flush=True)
                return False
            except Exception as error:
                print(f"ERROR: the heartbeat ended: {type(error).__name__}", flush=True)
                os._exit(_FAILED)

        super().__init__(beat)


def main() -> None:
    """Run the SuperNode with this process's arguments; the process ends with it."""
    fleet_http_connection.make_simple_http_retry_invoker = patient_invoker
    fleet_http_connection.HeartbeatSender = PatientHeartbeat
    status = 0
    try:
        flower_supernode()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else _FAILED
    except BaseException as error:
        print(f"ERROR: the node ended: {type(error).__name__}", flush=True)
        status = _FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
