"""Logs as JSON lines, rotated by size: one object a line, times in UTC."""

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path

ROTATE_BYTES = 10_000_000
KEPT_FILES = 5


class JsonLines(logging.Formatter):
    """A record as one JSON line; of an exception only its type and the place in the code.

    The text of an unexpected exception may hold a path or a value of a patient's file.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line for ``record``."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            trace = record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            if trace is not None:
                line["where"] = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        line.update(getattr(record, "facts", {}))
        return json.dumps(line)


def log_to_stream() -> None:
    """Send the whole process's log to standard error as JSON lines, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _PatientFile(logging.handlers.RotatingFileHandler):
    """Loses lines while its disk is full, without a traceback for each; stderr has them too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        pass


def rotating_file(path: Path) -> logging.Handler:
    """A handler that writes JSON lines to ``path`` and keeps five older files of 10 MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _PatientFile(path, maxBytes=ROTATE_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    handler.setFormatter(JsonLines())
    return handler
