"""A tiny bundle with random weights, a history that knows it, and a labelled folder."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.akida_runtime import DEVICES
from common.bundle import Bundle, make_bundle, save_bundle
from common.classes import ClassMap
from common.data.synthetic import synthetic_lesion_images, write_class_folders
from common.files import sha256_of
from server.history.engine import default_url
from server.history.records import EdgeUpdate, ModelVersion, Run
from server.history.store import open_history
from tests.qana.tiny import TINY, tiny_weights

CODES = ("bkl", "mel", "nv")
RUN = "20260101-run"


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    floating, quantized, program = tiny_weights()
    return make_bundle(
        program.to_bytes(),
        quantized,
        floating,
        run=RUN,
        version=2,
        parent=1,
        phase="float",
        classes=CODES,
        config=TINY,
        seed=0,
        fit={device: program.fit_report(device).to_json() for device in DEVICES},
    )


@pytest.fixture(scope="session")
def out(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with two runs: one with versions 1 and 2, a later one without any."""
    folder = tmp_path_factory.mktemp("out")
    place = folder / RUN / "versions" / "2"
    save_bundle(bundle, place)
    card = sha256_of(bundle.card.to_bytes())
    with open_history(default_url(folder)) as history:
        for number, name in enumerate((RUN, "20260102-empty")):
            history.save_run(
                Run(
                    run_id=name,
                    created_at=datetime(2026, 1, 1 + number, tzinfo=UTC),
                    state="finished",
                    seed=0,
                    strategy="fedavg",
                    data="synthetic",
                    folder=str(folder / name),
                    classes=CODES,
                    plan={},
                    software={},
                )
            )
        for version, path in ((1, folder / "gone" / "1"), (2, place)):
            made = datetime(2026, 1, 1, tzinfo=UTC)
            history.save_model_version(ModelVersion(RUN, version, "float", made, str(path), card))
        for site, spikes in (("a", 10.0), ("b", 20.0)):
            result = {"mean_spikes": {"stem": spikes}, "latency_ms": None, "power_mw": None}
            history.save_edge_update(EdgeUpdate(RUN, 2, site, 2, True, "", 0, result))
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up lesions of the model's three classes, one folder per class."""
    folder = tmp_path_factory.mktemp("data")
    images = synthetic_lesion_images(40, 1, classes=ClassMap(CODES))
    write_class_folders(images, folder)
    return folder
