"""Who may use a server's folder."""

import os
from pathlib import Path

import pytest

from common.errors import SettingsError
from server.server_settings import SERVER_LOCK, ServerFolder
from server.setting_up import set_up


def test_another_user_than_the_servers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(tmp_path / "srv", "localhost:8443", None, 8000, 8001, "")
    folder = ServerFolder(tmp_path / "srv")
    assert folder.settings().address == "localhost:8443"
    settings = folder.path / "fedqana.toml"
    text = settings.read_text()
    settings.write_text(text.replace("invitation_hours", "invitation_hour"))
    with pytest.raises(SettingsError, match="has no key 'invitation_hour'; its keys are invitat"):
        folder.settings()
    settings.write_text(text)
    (folder.path / SERVER_LOCK).touch()
    assert folder.settings()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SettingsError, match="runs as user"):
        folder.settings()
