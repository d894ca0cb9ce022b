"""A site's data is read once, and anew as soon as one of its files is another."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.classes import ClassMap
from common.data.cases import Cases
from common.errors import DataNotFound
from edge_client.site import FILES, SiteData, SiteFolder
from edge_client.site_cache import SiteCache

SIZE = 8
IMAGE = SIZE * SIZE * 3


def cases(name: str, n: int) -> Cases:
    ids = tuple(f"{name}{i}" for i in range(n))
    return Cases(np.zeros((n, SIZE, SIZE, 3), np.uint8), np.zeros(n, np.int64), ids, ids)


def site(path: Path, n: int = 4) -> SiteFolder:
    folder = SiteFolder(path)
    parts = {part: cases(part, n) for part in ("train", "validation", "test")}
    classes = ClassMap(("mel", "nv"))
    folder.write(SiteData("a", classes, **parts, arrivals=cases("later", 0), arrival_rounds=
                          np.zeros(0, np.int64)))  # fmt: skip
    return folder


def test_what_was_read_is_kept_and_cannot_be_written_to(tmp_path: Path) -> None:
    cache, folder = SiteCache(), site(tmp_path / "a")
    data = cache.read(folder)
    assert cache.read(SiteFolder(tmp_path / "." / "a")) is data
    for array in (data.train.images, data.test.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1


@pytest.mark.parametrize("name", FILES)
def test_a_replaced_file_is_read(tmp_path: Path, name: str) -> None:
    cache, folder = SiteCache(), site(tmp_path / "a")
    data = cache.read(folder)
    shutil.copy(folder.path / name, tmp_path / "new")  # of equal content and size
    (tmp_path / "new").replace(folder.path / name)
    assert cache.read(folder) is not data


def test_a_site_that_is_prepared_again(tmp_path: Path) -> None:
    cache, folder = SiteCache(), site(tmp_path / "a")
    before = cache.read(folder)
    folder.write(replace(before, train=cases("train", 7)))
    assert len(cache.read(folder).train) == 7
    (folder.path / "cases.npz").unlink()
    with pytest.raises(DataNotFound):
        cache.read(folder)


def test_no_more_than_fits_is_kept(tmp_path: Path) -> None:
    cache = SiteCache(largest=2 * 3 * 4 * IMAGE)  # of two sites
    folders = [site(tmp_path / name) for name in "abc"]
    first, second, third = (cache.read(folder) for folder in folders)
    assert cache.read(folders[0]) is first and cache.read(folders[1]) is second
    assert cache.read(folders[2]) is not third
    large = site(folders[0].path, n=100)  # in the place of the first: there is room for the third
    assert cache.read(large) is not cache.read(large)
    assert cache.read(folders[2]) is cache.read(folders[2])
