"""Sites' data: no lesion on two sides, whatever the settings; new classes; baselines."""

import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simulation.sites as sites_module
from common.classes import HAM10000_CLASSES
from common.data.cases import LesionImage
from common.errors import DataUnfit, SettingsError
from edge_client.site import SiteData, SiteFolder
from simulation.sites import DataSettings, NewClass, site_names, write_sites
from tests.support.tiny_run import tiny_data

PARTS = ("train", "validation", "test", "arrivals")
NEW = "vasc"


_read_images = sites_module.read_images


@lru_cache(maxsize=1)
def _images() -> list[LesionImage]:
    return _read_images("synthetic:60", 0, HAM10000_CLASSES)


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the images takes most of the time and is the same for all settings here."""
    monkeypatch.setattr(sites_module, "read_images", lambda *_: _images())


_cache = tempfile.TemporaryDirectory()


def made(**settings_: Any) -> dict[str, SiteData]:
    with tempfile.TemporaryDirectory() as name:
        found = tiny_data(**{"data": "synthetic:60", **settings_})
        folders = write_sites(found, Path(name), Path(_cache.name))
        return {folder.name: SiteFolder(folder).read() for folder in folders}


def lesions(sites: dict[str, SiteData]) -> list[tuple[str, str, str]]:
    """Site, part and lesion of every place where a lesion has cases."""
    return [
        (name, part, lesion)
        for name, site in sites.items()
        for part in PARTS
        for lesion in set(getattr(site, part).lesion_ids)
    ]


data_settings = st.fixed_dictionaries(
    {
        "sites": st.sampled_from(["source", "iid:2", "iid:4", "dirichlet:3:0.5"]),
        "seed": st.integers(0, 3),
        "rounds": st.integers(1, 5),
        "arrivals": st.sampled_from([0.0, 0.2, 0.5]),
        "new": st.booleans(),
        "baseline": st.sampled_from(["", "pooled"]),
    }
)


@given(data_settings)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_no_lesion_is_on_two_sides(drawn: dict[str, Any]) -> None:
    new = drawn.pop("new")
    name = {"source": "studio"}.get(drawn["sites"], "site-1")
    new_class = NewClass(code=NEW, round=drawn["rounds"], site=name) if new else None
    try:
        sites = made(**drawn, new_class=new_class)
    except (DataUnfit, SettingsError):
        return  # too little data for so many sites is said, not split anyhow
    places = Counter(lesion for _, _, lesion in lesions(sites))
    assert max(places.values()) == 1
    for site in sites.values():
        assert len(site.arrivals) == len(site.arrival_rounds)
        assert list(site.arrival_rounds) == sorted(site.arrival_rounds)
        assert all(1 <= r <= drawn["rounds"] for r in site.arrival_rounds)


def test_nothing_is_lost_without_a_new_class() -> None:
    cases = sum(len(getattr(s, part)) for s in made().values() for part in PARTS)
    assert cases == len(_images())


@pytest.mark.parametrize("baseline", ["pooled", "site-2"])
def test_a_baseline_is_judged_on_the_test_lesions_of_all_sites(baseline: str) -> None:
    federated = made()
    (alone,) = made(baseline=baseline).values()
    expected = {i for site in federated.values() for i in site.test.case_ids}
    assert set(alone.test.case_ids) == expected
    if baseline == "pooled":
        train = {i for site in federated.values() for i in site.train.case_ids}
        assert set(alone.train.case_ids) == train
        rounds = np.concatenate([s.arrival_rounds for s in federated.values()])
        assert list(alone.arrival_rounds) == sorted(rounds)
    else:
        assert alone.train.case_ids == federated["site-2"].train.case_ids


def test_a_site_that_there_is_not_is_said_before_anything_is_made() -> None:
    with pytest.raises(SettingsError, match="no such site"):
        site_names(tiny_data(baseline="nowhere"))
    new = NewClass(code=NEW, round=1, site="nowhere")
    with pytest.raises(SettingsError, match="there is no site 'nowhere'"):
        site_names(tiny_data(new_class=new))
    assert site_names(tiny_data()) == [f"site-{n}" for n in (1, 2, 3, 4)]


def test_a_new_class_arrives_at_one_site_only() -> None:
    index = HAM10000_CLASSES.index(NEW)
    sites = made(rounds=5, arrivals=0.2, new_class=NewClass(code=NEW, round=3, site="site-1"))
    assert not any((s.train.labels == index).any() for s in sites.values())
    arriving = {n: s.arrival_rounds[s.arrivals.labels == index] for n, s in sites.items()}
    assert len(arriving["site-1"]) > 0 and arriving["site-1"].min() >= 3
    assert not any(len(rounds) for name, rounds in arriving.items() if name != "site-1")


def test_the_same_settings_make_the_same_sites_again(tmp_path: Path) -> None:
    chosen = DataSettings(**{**tiny_data().model_dump(), "data": "synthetic:60"})
    write_sites(chosen, tmp_path / "a", Path(_cache.name))
    write_sites(chosen, tmp_path / "b", None)
    for file in sorted((tmp_path / "a").glob("*/*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
