import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.akida_runtime import Program, available_device
from common.errors import BundleDamaged, ModelDoesNotFit, SettingsError
from tests.akida_runtime.tiny import tiny_program, toy_cases, with_dense_layers


def test_says_what_it_is_made_of() -> None:
    program = tiny_program()
    assert program.layer_names == ("stem", "conv", "pooled", "spikes", "head")
    assert program.n_layers == 5
    assert program.input_shape == (32, 32, 3)
    assert program.output_shape == (1, 1, 3)
    assert program.n_spikes == 64


def test_potentials_are_logits_of_the_learned_classes() -> None:
    images, labels = toy_cases(100, seed=5, classes=3)
    potentials = tiny_program().predict_potentials(images)
    assert potentials.dtype == np.float32
    assert potentials.shape == (300, 3)  # more than one batch
    assert (potentials.argmax(axis=1) == labels).mean() > 0.9
    one_by_one = [tiny_program().predict_potentials(image[None])[0] for image in images[250:260]]
    np.testing.assert_array_equal(potentials[250:260], one_by_one)


def test_spikes_are_bits_and_counted_per_layer() -> None:
    images, _ = toy_cases(4, seed=5)
    spikes = tiny_program().spikes(images)
    assert spikes.shape == (16, 64)
    assert spikes.dtype == np.uint8
    assert set(np.unique(spikes)) == {0, 1}
    means = tiny_program().mean_spikes(images)
    assert list(means) == ["stem", "conv", "pooled", "spikes"]
    assert means["spikes"] == spikes.sum() / 16
    assert 0 < means["stem"] <= 16 * 16 * 16


def test_no_images_give_no_outputs() -> None:
    none = np.zeros((0, 32, 32, 3), np.uint8)
    assert tiny_program().predict_potentials(none).shape == (0, 3)
    assert tiny_program().spikes(none).shape == (0, 64)


@pytest.mark.parametrize("device", ["AKD1000", "AKD1500"])
def test_fit_report(device: str) -> None:
    report = tiny_program().fit_report(device)
    assert report.fits and report.reason == ""
    assert (report.sequences, report.passes) == (1, 1)
    assert report.nps == sum(report.nps_by_type.values()) - report.nps_by_type["HRC"]
    assert report.program_bytes and report.program_bytes > 50_000
    # stem 16*16*3*3*3*16, conv and pooled 16*16*3*3*(16 and 32)*32, spikes 3*3*32*64, head 64*3
    assert report.macs == 110592 + 1179648 + 2359296 + 18432 + 192
    assert [row["name"] for row in report.layers_table] == list(tiny_program().layer_names)
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    assert tiny_program().require_fit(device) == report


def test_a_program_that_does_not_fit_names_its_layer() -> None:
    wide = with_dense_layers(tiny_program(), units=1024, n_layers=3)
    assert wide.fit_report("AKD1000").external_memory
    report = wide.fit_report("AKD1500")
    assert not report.fits
    assert report.nps is report.passes is report.program_bytes is report.external_memory is None
    with pytest.raises(ModelDoesNotFit, match=r"AKD1500.*'dense1'.*FNP2"):
        wide.require_fit("AKD1500")


def test_unknown_device() -> None:
    with pytest.raises(SettingsError, match="AKD9000"):
        tiny_program().fit_report("AKD9000")


def test_bytes_round_trip(tmp_path: Path) -> None:
    stored = tiny_program().to_bytes()
    again = Program.from_bytes(stored)
    assert again.to_bytes() == stored
    images, _ = toy_cases(3, seed=9)
    np.testing.assert_array_equal(
        again.predict_potentials(images), tiny_program().predict_potentials(images)
    )
    (tmp_path / "p.fbz").write_bytes(stored)
    assert Program.from_file(tmp_path / "p.fbz").to_bytes() == stored


def test_damaged_bytes_never_reach_akida(tmp_path: Path) -> None:
    """In a process of its own: akida ends it with a segmentation fault on a third of these."""
    (tmp_path / "p.fbz").write_bytes(tiny_program().to_bytes())
    script = """
import sys, numpy as np
from pathlib import Path
from common.akida_runtime import Program
from common.errors import BundleDamaged
good = Path(sys.argv[1]).read_bytes()
random = np.random.default_rng(0)
places = random.integers(0, len(good), 150)
damaged = [good[:p] + bytes([good[p] ^ random.integers(1, 256)]) + good[p + 1:] for p in places]
damaged += [good[:p] for p in places] + [b"", b"PK", good + b"x"]
for content in damaged:
    try:
        Program.from_bytes(content)
    except BundleDamaged:
        continue
    sys.exit(9)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "p.fbz")], capture_output=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleDamaged, match=r"nothing\.fbz"):
        Program.from_file(tmp_path / "nothing.fbz")


def test_nothing_is_measured_without_a_device() -> None:
    device = available_device()
    if device.real:
        pytest.skip("this machine has an Akida device")
    assert device.name.startswith("software backend (akida ")
    measured = tiny_program().measure(toy_cases(1, seed=0)[0])
    assert measured.latency_ms is measured.power_mw is measured.floor_mw is None
