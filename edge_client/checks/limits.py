"""Limits of time: a check that hangs is left alone, or its process ended."""

import threading
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from common.errors import FedqanaError

T = TypeVar("T")


class ProcessDied(Exception):
    """The process of a check ended without a result."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """What ``work`` returns; TimeoutError after so many seconds, and it is left running.

    ``work`` must not raise.
    """
    results: SimpleQueue[T] = SimpleQueue()
    threading.Thread(target=lambda: results.put(work()), daemon=True).start()
    try:
        return results.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None


def in_own_process(seconds: float, work: Callable[..., T], *arguments: Any) -> T:
    """What ``work`` returns in a new process, which is killed after so many seconds.

    For what holds the interpreter's lock while it computes, or may end its process.

    Raises
    ------
    TimeoutError
    ProcessDied
    FedqanaError
        What ``work`` raised.
    """
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sending, work, arguments), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(seconds):
            raise TimeoutError
        result = receiving.recv()
    except EOFError:
        process.join(1.0)
        raise ProcessDied(f"exit status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiving.close()
    if isinstance(result, FedqanaError | ProcessDied):
        raise result
    return result  # type: ignore[no-any-return]


def _send_result(
    sending: Connection, work: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    try:
        result = work(*arguments)
    except FedqanaError as error:
        result = error
    except Exception as error:  # its text may hold something of a patient's file
        result = ProcessDied(type(error).__name__)
    sending.send(result)
