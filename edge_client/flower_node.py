"""Flower's SuperNode, as a process that ends when its connection has ended for good.

SuperNode 1.41 gives up on a connection that is cut during the TLS handshake, which a restarting
proxy or a firewall does. Its main thread then ends with an error, but the thread of its local API
keeps the process alive, which does nothing from then on. Here the process ends with it, and
`fedqana client start` starts it again.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import sys

from flwr.supernode.cli.flower_supernode import flower_supernode

_FAILED = 1


def main() -> None:
    """Run the SuperNode with this process's arguments; the process ends with it."""
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
