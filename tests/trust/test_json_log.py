"""Log files: JSON lines, and a full disk costs lines only."""

import json
import logging
from pathlib import Path

import pytest

from common.json_log import rotating_file


@pytest.fixture
def logger() -> logging.Logger:
    found = logging.Logger("of-a-test")
    found.setLevel(logging.INFO)
    return found


def test_lines_are_json(tmp_path: Path, logger: logging.Logger) -> None:
    logger.addHandler(rotating_file(tmp_path / "logs" / "client.log"))
    logger.info("hello %s", "there", extra={"facts": {"round": 3}})
    line = json.loads((tmp_path / "logs" / "client.log").read_text())
    assert line["message"] == "hello there" and line["round"] == 3 and line["level"] == "info"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_not_answered_with_tracebacks(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "client.log").symlink_to("/dev/full")
    logger.addHandler(rotating_file(tmp_path / "client.log"))
    logger.warning("this is lost")
    assert capsys.readouterr() == ("", "")
