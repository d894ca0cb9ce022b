import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.classes import HAM10000_CLASSES
from common.commands.data import data
from common.data import smote as module
from common.data.cases import Cases, LesionImage
from common.data.preparation import prepare_cases
from common.data.readers import read_lesion_images
from common.data.smote import between_neighbours, most_made, smote, target_size
from common.data.splits import FRACTIONS, split_by_lesion
from common.data.synthetic import write_case_list, write_class_folders
from common.data.whitening import fit_whitening
from common.errors import SettingsError
from common.seeds import derive_seed


def cases_of(counts: dict[int, int], size: int = 8, seed: int = 1) -> Cases:
    """Cases of random pixels around a level of their class."""
    labels = np.repeat(list(counts), list(counts.values())).astype(np.int64)
    spread = np.random.default_rng(seed).integers(0, 60, (len(labels), size, size, 3))
    pixels = (25 * labels[:, None, None, None] + spread).astype(np.uint8)
    ids = tuple(f"c{i}" for i in range(len(labels)))
    return Cases(pixels, labels, ids, ids)


@st.composite
def white_points(draw: st.DrawFn) -> NDArray[np.float32]:
    """Points of a class among others, white as they come out of all components."""
    n = draw(st.integers(3, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return fit_whitening(images, 4096, 0)[1][: draw(st.integers(2, n - 1))]


@given(white_points(), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=40)
def test_new_points_are_convex_mixtures_of_two(
    own: NDArray[np.float32], n_new: int, seed: int
) -> None:
    mixed = between_neighbours(own, n_new, seed)
    assert mixed.points.shape == (n_new, own.shape[1]) and mixed.points.dtype == np.float32
    # The points are affinely independent, so the weights that make up a new one are unique.
    system = np.vstack([own.T, np.ones(len(own))]).astype(np.float64)
    wanted = np.vstack([mixed.points.T, np.ones(n_new)])
    weights, *_ = np.linalg.lstsq(system, wanted, rcond=None)
    np.testing.assert_allclose(system @ weights, wanted, atol=1e-3)
    assert weights.min() > -1e-3 and weights.max() < 1 + 1e-3
    assert ((weights > 1e-3).sum(axis=0) <= 2).all()
    # And they are what is reported.
    reported = np.zeros_like(weights)
    each = np.arange(n_new)
    reported[mixed.parents[:, 0], each] += 1 - mixed.mixing
    reported[mixed.parents[:, 1], each] += mixed.mixing
    np.testing.assert_allclose(reported, weights, atol=2e-3)


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=40)
def test_neighbours_are_the_nearest(n: int, dimensions: int, seed: int) -> None:
    own = np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)
    mixed = between_neighbours(own, 50, seed)
    a, b = own[mixed.parents[:, 0]], own[mixed.parents[:, 1]]
    np.testing.assert_allclose(mixed.points, a + mixed.mixing[:, None] * (b - a), atol=1e-3)
    if dimensions > 1:  # on a line a point is between many others
        apart = np.linalg.norm(own[:, None] - own[None], axis=-1)
        rank = (apart < apart[mixed.parents[:, 0], mixed.parents[:, 1]][:, None, None]).sum(axis=2)
        assert (rank[np.arange(50), mixed.parents[:, 0]] <= 5).all()


def test_new_images_are_two_real_ones_laid_over_each_other() -> None:
    cases = cases_of({0: 60, 1: 9, 2: 12, 3: 4})
    found = smote(cases, 4, seed=3, share=0.5)
    assert found.made.class_counts(4).tolist() == [0, 21, 18, 12]
    a, b = (cases.images[found.parents[:, side]].astype(float) for side in (0, 1))
    share = found.mixing[:, None, None, None]
    assert np.abs(found.made.images - ((1 - share) * a + share * b)).max() < 0.6
    for side in (0, 1):
        assert (cases.labels[found.parents[:, side]] == found.made.labels).all()
    assert (found.parents[:, 0] != found.parents[:, 1]).all()


def test_classes_of_every_size() -> None:
    cases = cases_of({0: 100, 1: 30, 2: 24, 3: 3, 4: 2, 5: 1})
    found = smote(cases, 7, seed=0)
    assert found.target == 25
    assert [(o.cases, o.made, o.outcome) for o in found.outcomes] == [
        (100, 0, "enough"),
        (30, 0, "enough"),
        (24, 1, "filled"),
        (3, 6, "few-cases"),  # one for each of three cases and two neighbours
        (2, 2, "few-cases"),
        (1, 0, "single-case"),
        (0, 0, "absent"),
    ]
    assert found.cases.class_counts(7).tolist() == [100, 30, 25, 9, 4, 1, 0]
    assert found.components == len(cases) - 1
    assert (found.cases.images[: len(cases)] == cases.images).all()
    assert found.cases.case_ids[: len(cases)] == cases.case_ids
    assert len(set(found.cases.case_ids)) == len(found.cases)
    assert all(i.startswith("smote-") for i in (*found.made.case_ids, *found.made.lesion_ids))
    assert found.made.images.dtype == np.uint8 and found.made.labels.dtype == np.int64


@pytest.mark.parametrize("counts", [{}, {2: 5}, {0: 4, 1: 4}, {0: 1, 1: 1}, {0: 90, 1: 1}])
def test_nothing_to_do(counts: dict[int, int]) -> None:
    cases = cases_of(counts)
    found = smote(cases, 3, seed=0)
    assert found.cases.case_ids == cases.case_ids and found.components == 0
    assert not len(found.made) and found.parents.shape == (0, 2) and found.mixing.shape == (0,)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_image_many_times() -> None:
    cases = cases_of({0: 40, 1: 4})
    same = Cases(cases.images[:1].repeat(44, axis=0), cases.labels, cases.case_ids, cases.case_ids)
    assert (smote(same, 2, seed=0).cases.images == same.images[0]).all()


def test_it_depends_on_the_seed_only() -> None:
    cases = cases_of({0: 40, 1: 10, 2: 3})
    before = cases.images.copy()
    once, again, other = (smote(cases, 3, seed, share=0.5) for seed in (1, 1, 2))
    assert (once.cases.images == again.cases.images).all()
    assert (once.parents == again.parents).all() and (once.mixing == again.mixing).all()
    assert (once.cases.images != other.cases.images).any()
    assert (cases.images == before).all()


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=64),
    st.floats(0, 1, exclude_min=True),
)
def test_never_more_are_made_than_there_are(sizes: list[int], share: float) -> None:
    counts = np.array(sizes, np.int64)
    target = target_size(counts, share)
    assert 0 <= target <= share * counts.max()
    made = sum(min(max(target - n, 0), most_made(n)) for n in sizes)
    assert made <= counts.sum()


def test_the_space_is_fitted_to_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def noted(images: NDArray[np.uint8], *rest: int) -> object:
        fitted.append(len(images))
        return fit_whitening(images, *rest)

    monkeypatch.setattr(module, "fit_whitening", noted)
    monkeypatch.setattr(module, "MOST_FITTED", 30)
    cases = cases_of({0: 100, 1: 20, 2: 4})
    found = smote(cases, 3, seed=0, share=0.3)
    assert fitted == [30] and found.components == 29
    # The classes that are filled are in the space whole.
    a, b = (cases.images[found.parents[:, side]].astype(float) for side in (0, 1))
    share = found.mixing[:, None, None, None]
    assert np.abs(found.made.images - ((1 - share) * a + share * b)).max() < 0.6
    # If they alone are more, what they lack there is left out, and nothing fails.
    monkeypatch.setattr(module, "MOST_FITTED", 10)
    assert smote(cases, 3, seed=0, share=0.3).components == 9


def test_time_and_memory_of_600_images() -> None:
    script = (
        "import numpy as np, resource, time\n"
        "from common.data.cases import Cases\n"
        "from common.data.smote import smote\n"
        "from imblearn.over_sampling import SMOTE\n"  # not counted: what imports take
        "from sklearn.decomposition import PCA\n"
        "images = np.random.default_rng(0).integers(0, 256, (600, 64, 64, 3), dtype=np.uint8)\n"
        "labels = np.repeat([0, 1], [500, 100])\n"
        "ids = tuple(map(str, range(600)))\n"
        "usage = lambda: resource.getrusage(resource.RUSAGE_SELF)\n"
        "before = usage()\n"
        "assert len(smote(Cases(images, labels, ids, ids), 2, 0).made) == 25\n"
        "after = usage()\n"
        "print(after.ru_utime - before.ru_utime, (after.ru_maxrss - before.ru_maxrss) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds < 10, "1.4 s on an idle core"
    assert mebibytes < 250, "the images as float32 are 28 MiB"


@pytest.fixture
def folder(tmp_path: Path, images: list[LesionImage]) -> Path:
    write_class_folders(images, tmp_path / "data")
    write_case_list(images, tmp_path / "data")
    return tmp_path / "data"


def test_command(folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    arguments = ["smote", str(folder), "--share", "1", "--sheet", str(sheet)]
    result = CliRunner().invoke(data, [*arguments, "--json"], catch_exceptions=False)
    summary = json.loads(result.stdout)
    train = split_by_lesion(
        read_lesion_images(folder, HAM10000_CLASSES), FRACTIONS, derive_seed(0, "split", "")
    )["train"]
    assert summary["training_cases"] == len(train)
    found = smote(prepare_cases(train, HAM10000_CLASSES), 7, 0, share=1.0)
    assert summary["made"] == len(found.made) > 0
    assert [c["made"] for c in summary["classes"].values()] == [o.made for o in found.outcomes]
    assert summary["seconds"] > 0 and summary["peak_mib"] > 20
    page = sheet.read_text()
    assert sheet.stat().st_mode & 0o077 == 0
    shown = sum(min(8, o.made) for o in found.outcomes)
    assert page.count("alt=new") == shown and page.count("<figcaption>") == shown
    assert page.count("alt=real") == 2 * shown + sum(min(8, o.cases) for o in found.outcomes)
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0 and f"{summary['made']} made of" in result.output


def test_command_on_one_source(folder: Path) -> None:
    found = CliRunner().invoke(data, ["smote", str(folder), "--source", "studio", "--json"])
    assert json.loads(found.stdout)["source"] == "studio"
    unknown = CliRunner().invoke(data, ["smote", str(folder), "--source", "attic"])
    assert isinstance(unknown.exception, SettingsError) and "studio" in str(unknown.exception)


def test_real_lesions(ham10000: Path) -> None:
    images = read_lesion_images(ham10000, HAM10000_CLASSES)
    rare = [i for i in images if i.label in ("df", "vasc")][:30]
    cases = prepare_cases([*[i for i in images if i.label == "nv"][:150], *rare], HAM10000_CLASSES)
    found = smote(cases, 7, seed=0)
    assert len(found.made) > 0
    a, b = (cases.images[found.parents[:, side]].astype(float) for side in (0, 1))
    share = found.mixing[:, None, None, None]
    assert np.abs(found.made.images - ((1 - share) * a + share * b)).max() < 0.6
