import time
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from common.classes import HAM10000_CLASSES, ClassMap
from common.data.cases import LesionImage
from common.data.preparation import prepare_cases
from common.data.splits import split_by_lesion
from common.data.synthetic import STYLES, synthetic_lesion_images
from common.errors import SettingsError


def test_same_seed_same_bytes(images: list[LesionImage]) -> None:
    again = synthetic_lesion_images(60, seed=7)
    assert [i.image_id for i in again] == [i.image_id for i in images]
    assert [i.read() for i in again[:5]] == [i.read() for i in images[:5]]
    assert synthetic_lesion_images(60, seed=8)[0].read() != images[0].read()


def test_lesions_views_and_sources(images: list[LesionImage]) -> None:
    assert len({i.lesion_id for i in images}) == 60
    assert set(Counter(i.lesion_id for i in images).values()) == {1, 2, 3}
    assert len({i.read() for i in images}) == len(images)
    for lesion in {i.lesion_id for i in images}:
        own = [i for i in images if i.lesion_id == lesion]
        assert len({(i.label, i.source) for i in own}) == 1
    assert {i.source for i in images} == set(STYLES)


def test_class_shares() -> None:
    big = synthetic_lesion_images(700, seed=1)
    lesions = Counter({i.lesion_id: i.label for i in big}.values())
    assert lesions.most_common(1)[0][0] == "nv"
    assert min(lesions.values()) >= 6 and set(lesions) == set(HAM10000_CLASSES.codes)
    for n in (1, 3, 8, 20):
        assert len({i.lesion_id for i in synthetic_lesion_images(n, seed=1)}) == n


def test_styles_differ() -> None:
    means = []
    for style in STYLES:
        own = synthetic_lesion_images(40, seed=2, style_names=[style])
        cases = prepare_cases(own, HAM10000_CLASSES)
        means.append(cases.images.mean(axis=(0, 1, 2)))
    distances = [np.abs(a - b).max() for i, a in enumerate(means) for b in means[:i]]
    assert min(distances) > 5


def test_classes_are_learnable_and_overlap() -> None:
    """Even colours alone tell classes apart, far above chance (1 in 7) and far from perfectly."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    parts = split_by_lesion(synthetic_lesion_images(250, seed=5), {"train": 0.6, "test": 0.4}, 0)
    train, test = (prepare_cases(p, HAM10000_CLASSES, size=16) for p in parts.values())

    def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        centre = pixels[:, 4:12, 4:12].astype(float) / 255
        return np.hstack([centre.mean(axis=(1, 2)), centre.std(axis=(1, 2))])

    model = LogisticRegression(C=100, class_weight="balanced", max_iter=2000)
    model.fit(colours(train.images), train.labels)
    score = balanced_accuracy_score(test.labels, model.predict(colours(test.images)))
    assert 0.3 < score < 0.9


def test_drawing_is_fast(images: list[LesionImage]) -> None:
    start = time.process_time()
    prepare_cases(images[:50], HAM10000_CLASSES)
    assert (time.process_time() - start) / 50 < 0.02, "10 ms on an idle core"


@pytest.mark.parametrize(
    "settings",
    [
        {"n_lesions": 0, "seed": 0},
        {"n_lesions": 5, "seed": -1},
        {"n_lesions": 5, "seed": 0, "classes": ClassMap(("nv", "scc"))},
        {"n_lesions": 5, "seed": 0, "classes": ClassMap(())},
        {"n_lesions": 5, "seed": 0, "style_names": ["oil"]},
        {"n_lesions": 5, "seed": 0, "style_names": []},
    ],
)
def test_what_cannot_be_drawn(settings: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="cannot make"):
        synthetic_lesion_images(**settings)  # type: ignore[arg-type]


def test_fewer_classes() -> None:
    known = HAM10000_CLASSES.without("vasc")
    assert {i.label for i in synthetic_lesion_images(50, 0, classes=known)} == set(known.codes)


def test_only_styles_that_never_see_a_class() -> None:
    only = synthetic_lesion_images(4, 0, classes=ClassMap(("vasc",)), style_names=["polarized"])
    assert {i.source for i in only} == {"polarized"}
