import shutil
from pathlib import Path

import pytest

from common.bundle import CARD, Bundle, parse_card
from common.errors import BundleDamaged, DatabaseUnreachable, ModelNotFound, RunNotFound
from server.history.engine import default_url
from server.model_lookup import find_bundle, find_model
from tests.model_command.conftest import RUN


@pytest.mark.parametrize("model", [f"{RUN}:2", "20260101:2", f"{RUN}:latest", "20260101-r:latest"])
def test_run_and_version_find_the_bundle(model: str, out: Path, bundle: Bundle) -> None:
    assert find_bundle(model, out, None) == out / RUN / "versions" / "2"
    found = find_model(model, Path("elsewhere"), default_url(out))
    assert found.load().card == bundle.card
    assert found.mean_spikes == {"stem": 15.0} and found.sites == 2
    assert found.latency_ms is None and found.power_mw is None


def test_a_folder_needs_no_history(out: Path, bundle: Bundle) -> None:
    found = find_model(str(out / RUN / "versions" / "2"), Path("elsewhere"), None)
    assert found.load().card == bundle.card and found.mean_spikes == {}


def test_a_moved_output_folder_is_found(out: Path, tmp_path: Path, bundle: Bundle) -> None:
    shutil.copytree(out, tmp_path / "moved")
    moved = tmp_path / "moved"
    shutil.copytree(moved / RUN / "versions" / "2", moved / RUN / "versions" / "1")
    assert find_bundle(f"{RUN}:1", moved, None) == moved / RUN / "versions" / "1"


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("nothing", ModelNotFound, "RUN:VERSION"),
        (":2", ModelNotFound, "RUN:VERSION"),
        (f"{RUN}:", ModelNotFound, "RUN:VERSION"),
        (f"{RUN}:new", ModelNotFound, "RUN:VERSION"),
        (f"{RUN}:3", ModelNotFound, "1 to 2"),
        (f"{RUN}:1", ModelNotFound, "not there"),
        ("latest:latest", ModelNotFound, "no model version yet"),
        ("2026:1", RunNotFound, "several"),
        ("other:1", RunNotFound, "other"),
    ],
)
def test_what_is_not_found_says_why(
    model: str, error: type[Exception], words: str, out: Path
) -> None:
    with pytest.raises(error, match=words):
        find_bundle(model, out, None)


def test_no_history_is_not_created_by_asking(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable):
        find_bundle("latest:latest", tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=CARD):
        find_model(str(tmp_path), tmp_path, None).load()


def test_a_card_other_than_recorded_is_refused(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "moved")
    card = tmp_path / "moved" / RUN / "versions" / "2" / CARD
    other = parse_card(card.read_bytes()).model_copy(update={"seed": 1})
    card.write_bytes(other.to_bytes())
    shutil.copytree(card.parent, card.parents[1] / "1")
    with pytest.raises(BundleDamaged, match="history"):
        find_model(f"{RUN}:1", tmp_path / "moved", None).load()
    assert find_model(str(card.parent), tmp_path, None).load().card.seed == 1
