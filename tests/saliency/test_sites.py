import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.classes import HAM10000_CLASSES
from common.data.preparation import prepare_cases, whole_frame
from common.errors import DataUnreadable, SettingsError
from common.saliency import lite0, networks
from common.saliency.choice import CropChoice, crop_of
from edge_client.local_service.local_site import LocalSite
from edge_client.local_service.pictures import prepared
from edge_client.local_service.site_facts import SiteFacts
from edge_client.service import EdgeClient
from edge_client.site import SiteFolder
from edge_client.site_preparation import prepare_site
from simulation.sites import DataSettings, site_names, write_sites
from tests.local_service.running import make_home
from tests.saliency.lesions import lesion_images, write_masks

_LESIONS = 12
_SALIENCY = CropChoice("saliency")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's folder: a CSV and PNG files, with masks."""
    folder = tmp_path_factory.mktemp("data")
    images = lesion_images(_LESIONS)
    with (folder / "cases.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "image_id", "dx", "lesion_id", "dataset"])
        for image in images:
            (folder / image.location).write_bytes(image.read())
            rows.writerow([image.location, image.image_id, image.label, image.lesion_id, "a"])
    write_masks(images, folder, zipped=True)
    return folder


@pytest.fixture(scope="module")
def home(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's home that was prepared with the saliency crop."""
    home = tmp_path_factory.mktemp("home")
    prepare_site(home, "clinic", data, HAM10000_CLASSES, 64, _SALIENCY)
    return home


def test_later_pictures_are_cropped_as_the_sites_cases(home: Path, data: Path) -> None:
    site = SiteFolder(home).read()
    assert site.crop == replace(_SALIENCY, made=crop_of(_SALIENCY).name)
    facts = SiteFacts.of(site)
    judged = site.test.case_ids[0]
    content = (data / f"{judged}.png").read_bytes()
    image = prepared(content, 64, facts.crop)
    np.testing.assert_array_equal(image, site.test.images[0])
    assert facts.are_held_back("renamed", image), "it is known again by its pixels"
    otherwise = prepared(content, 64, whole_frame)
    assert not facts.are_held_back("renamed", otherwise)


def test_prepared_again_it_keeps_its_crop(home: Path, data: Path) -> None:
    before = SiteFolder(home).read()
    (boxes,) = (home / "boxes").iterdir()
    assert len(json.loads(boxes.read_text())["boxes"]) == _LESIONS
    after = prepare_site(home, "clinic", data, HAM10000_CLASSES, 64)
    assert after.crop == before.crop
    np.testing.assert_array_equal(after.train.images, before.train.images)


def test_a_site_of_before_has_the_centred_square(home: Path, tmp_path: Path) -> None:
    for name in ("site.json", "cases.npz", "arrivals.npz"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    about = json.loads((tmp_path / "site.json").read_text())
    del about["crop"]
    (tmp_path / "site.json").write_text(json.dumps(about))
    assert SiteFolder(tmp_path).read().crop == CropChoice()
    about["crop"] = {"nonsense": 1}
    (tmp_path / "site.json").write_text(json.dumps(about))
    with pytest.raises(DataUnreadable, match="prepare the"):
        SiteFolder(tmp_path).read()


def test_without_the_network_the_service_does_not_begin(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = SiteFolder(home).read()
    networks._lite0.cache_clear()
    monkeypatch.setattr(lite0, "PACKAGE", "fedqana_no_such_package")
    with pytest.raises(SettingsError, match=r"pip install 'fedqana\[saliency\]'") as caught:
        SiteFacts.of(site)
    assert "\n" not in str(caught.value)


def test_the_service_learns_what_the_crop_shows(tmp_path: Path) -> None:
    state = make_home(tmp_path / "home")
    about = json.loads((tmp_path / "home" / "site.json").read_text())
    about["crop"] = {"name": "whole", "weights": "", "made": "whole-frame"}
    (tmp_path / "home" / "site.json").write_text(json.dumps(about))
    site = LocalSite(state, SiteFacts.of(SiteFolder(tmp_path / "home").read()))
    picture = lesion_images(1)[0]
    size = site.state.snapshot().image_size
    site.learn(picture.read(), site.codes()[0], "case", "", patience=5)
    site.classify(picture.read())
    site.close()
    kept = EdgeClient(state).journal.case("case")
    expected = prepare_cases([picture], HAM10000_CLASSES, size=size, crop=whole_frame)
    assert kept is not None
    np.testing.assert_array_equal(kept.image, expected.images[0])


def _settings(data: Path, **others: object) -> DataSettings:
    values = {
        "data": str(data),
        "sites": "iid:1",
        "seed": 0,
        "rounds": 2,
        "arrivals": 0,
        "size": 32,
    }
    return DataSettings.model_validate({**values, **others})


@pytest.mark.parametrize("crop", ["saliency", "mask", "whole"])
def test_simulated_sites(data: Path, tmp_path: Path, crop: str) -> None:
    settings = _settings(data, crop=crop, baseline="pooled")
    assert f"crop {crop}" in settings.name
    assert site_names(settings) == ["pooled"]
    told: list[tuple[int, int]] = []
    (folder,) = write_sites(
        settings, tmp_path / "sites", tmp_path / "cache", lambda done, n: told.append((done, n))
    )
    site = SiteFolder(folder).read()
    assert site.crop.name == crop and site.crop.made == settings.cropping().name
    centred = write_sites(_settings(data, baseline="pooled"), tmp_path / "centre", None)
    assert (site.train.images != SiteFolder(centred[0]).read().train.images).any()
    assert len(told) == (_LESIONS if crop == "saliency" else 0)


def test_wrong_weights_end_a_simulation_early(data: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_text("no")
    wrong = _settings(data, crop="saliency", saliency_weights=str(tmp_path / "weights.h5"))
    with pytest.raises(DataUnreadable, match="does not hold the weights"):
        site_names(wrong)
    with pytest.raises(SettingsError, match="needs a data folder"):
        site_names(_settings(Path("synthetic:60"), crop="mask"))


def test_settings_of_before_are_read(data: Path) -> None:
    old = _settings(data).model_dump()
    del old["crop"], old["saliency_weights"]
    assert DataSettings.model_validate(old).crop_choice == CropChoice()
