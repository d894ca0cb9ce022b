import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.cases import LesionImage
from common.data.sites import assign_sites
from common.data.splits import split_by_lesion
from common.errors import SettingsError

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}

# Few lesion ids and labels, so that lesions repeat across labels and sources.
tables = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abcd"), st.sampled_from(["x", "y", "z", ""])),
    min_size=1,
    max_size=120,
).map(
    lambda rows: [
        LesionImage(f"{i:03d}", f"L{lesion}", label, source, f"{i}.png", bytes)
        for i, (lesion, label, source) in enumerate(rows)
    ]
)
Table = Callable[[list[tuple[str, str, str]]], list[LesionImage]]


def assert_whole_lesions(parts: dict[str, list[LesionImage]], images: list[LesionImage]) -> None:
    lesions = [{i.lesion_id for i in part} for part in parts.values()]
    assert sum(map(len, lesions)) == len(set().union(*lesions)), "a lesion stands on two sides"
    assert sorted(i.image_id for p in parts.values() for i in p) == sorted(
        i.image_id for i in images
    )


@given(tables, st.integers(0, 2**32))
def test_no_lesion_in_two_parts(images: list[LesionImage], seed: int) -> None:
    parts = split_by_lesion(images, FRACTIONS, seed)
    assert list(parts) == list(FRACTIONS)
    assert_whole_lesions(parts, images)
    assert split_by_lesion(images[::-1], FRACTIONS, seed) == parts


@given(
    tables,
    st.sampled_from(["source", "iid:1", "iid:3", "dirichlet:3:0.05", "dirichlet:4:100"]),
    st.integers(0, 2**32),
)
def test_no_lesion_at_two_sites(images: list[LesionImage], how: str, seed: int) -> None:
    n_sites = 0 if how == "source" else int(how.split(":")[1])
    if n_sites > len({i.lesion_id for i in images}) or not any(i.source for i in images):
        return
    sites = assign_sites(images, how, seed)
    assert all(sites.values()), "an empty site"
    assert how == "source" or len(sites) == n_sites
    assert_whole_lesions(sites, images)
    assert assign_sites(images[::-1], how, seed) == sites


@pytest.mark.parametrize(
    ("n_lesions", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (7, 1, 2)), (0, None)],
)
def test_lesions_per_part(
    table: Table, n_lesions: int, expected: tuple[int, int, int] | None
) -> None:
    rows = [(f"n{i}", "nv", "") for i in range(100)] + [
        (f"d{i}", "df", "") for i in range(n_lesions)
    ]
    parts = split_by_lesion(table(rows), FRACTIONS, seed=1)
    per_part = [Counter(i.label for i in part) for part in parts.values()]
    assert [c["nv"] for c in per_part] == [70, 10, 20]
    assert tuple(c["df"] for c in per_part) == (expected or (0, 0, 0))


def test_a_new_class_leaves_the_others_where_they_are(table: Table) -> None:
    rows = [(f"n{i}", "nv", "") for i in range(30)]
    before = split_by_lesion(table(rows), FRACTIONS, seed=3)
    after = split_by_lesion(table([*rows, ("d", "df", "")]), FRACTIONS, seed=3)
    for part, images in before.items():
        assert [i for i in after[part] if i.label == "nv"] == images


def test_seed_matters(table: Table) -> None:
    images = table([(f"n{i}", "nv", "") for i in range(50)])
    splits = {str(split_by_lesion(images, FRACTIONS, seed)["test"]) for seed in range(5)}
    sites = {str(assign_sites(images, "iid:3", seed)["site-1"]) for seed in range(5)}
    assert len(splits) == len(sites) == 5


@pytest.mark.parametrize(
    "fractions", [{}, {"train": 1.2}, {"train": 0.5}, {"train": 1.5, "test": -0.5}]
)
def test_wrong_fractions(table: Table, fractions: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="sum to 1"):
        split_by_lesion(table([("a", "nv", "")]), fractions, seed=0)


def test_lesion_goes_to_the_source_with_most_of_its_images(table: Table) -> None:
    rows = [
        ("A", "nv", "y"),
        ("A", "nv", "y"),
        ("A", "nv", "x"),
        ("B", "nv", "z"),
        ("B", "nv", "x"),
    ]
    sites = assign_sites(table(rows), "source", seed=0)
    assert {name: [i.lesion_id for i in own] for name, own in sites.items()} == {
        "x": ["B", "B"],
        "y": ["A", "A", "A"],
    }


def test_site_names_are_safe_as_file_names(table: Table) -> None:
    rows = [("A", "nv", "../../etc"), ("B", "nv", "Klinik Süd"), ("C", "nv", "")]
    assert list(assign_sites(table(rows), "source", 0)) == ["Klinik-Sud", "etc", "unnamed"]


def test_no_two_sources_become_one_site(table: Table) -> None:
    sources = ["北京", "上海", "Klinik Ä", "Klinik Ö", "a b", "a-b", "a/b", "A-B", "a-b-2", ""]
    rows = [(f"L{i}", "nv", source) for i, source in enumerate(sources)]
    sites = assign_sites(table(rows), "source", seed=0)
    assert len({name.lower() for name in sites}) == len(sources)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) for name in sites)
    assert sites["unnamed"][0].source == ""
    assert {tuple(i.source for i in own) for own in sites.values()} == {(s,) for s in sources}


def test_iid_sites_are_alike_and_dirichlet_sites_are_not(table: Table) -> None:
    rows = [(f"L{i}", "abcd"[i % 4], "") for i in range(400)]

    def spread(how: str) -> float:
        sites = assign_sites(table(rows), how, seed=2).values()
        counts = [Counter(i.label for i in own) for own in sites]
        return max(max(c[x] for c in counts) - min(c[x] for c in counts) for x in "abcd")

    assert spread("iid:4") <= 1
    assert spread("dirichlet:4:1000") < 20 < 60 < spread("dirichlet:4:0.1")


@pytest.mark.parametrize(
    "how",
    ["", "sources", "iid", "iid:0", "iid:-1", "iid:x", "iid:9", "dirichlet:2", "dirichlet:2:0",
     "dirichlet:2:nan", "dirichlet:2:1e9", "dirichlet:2:1.2.3", "iid:2:3", "source"],
)  # fmt: skip
def test_impossible_sites(table: Table, how: str) -> None:
    images = table([(f"L{i}", "nv", "") for i in range(8)])
    with pytest.raises(SettingsError, match=r"sites '.*iid:N|sites '.*1 to 8"):
        assign_sites(images, how, seed=0)


def test_sites_of_nothing() -> None:
    with pytest.raises(SettingsError):
        assign_sites([], "iid:1", seed=0)
