from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import StateDamaged
from edge_client.exemplars import ExemplarStore
from tests.edge_client.cases import ALL, CLASSES, NEW, arriving, some_cases


def same(a: ExemplarStore, b: ExemplarStore) -> bool:
    return a.to_bytes() == b.to_bytes()


def test_bounded_per_class() -> None:
    cases = some_cases(20, seed=1)
    store = ExemplarStore.initial(cases, CLASSES, per_class=6, seed=3)
    assert {code: store.codes.count(code) for code in CLASSES} == dict.fromkeys(CLASSES, 6)
    for case_id, code, image in zip(store.case_ids, store.codes, store.images, strict=True):
        index = cases.case_ids.index(case_id)
        assert CLASSES[cases.labels[index]] == code
        np.testing.assert_array_equal(cases.images[index], image)
    assert not same(store, ExemplarStore.initial(cases, CLASSES, per_class=6, seed=4))


def test_a_new_class_has_room() -> None:
    store = ExemplarStore.initial(some_cases(20, seed=1), CLASSES, per_class=6)
    grown = store.with_cases(arriving(4, seed=2, round_number=1, codes=(NEW,)))
    assert grown.codes.count(NEW) == 4
    assert set(grown.case_ids) > set(store.case_ids)
    assert list(grown.labels(ALL)) == [ALL.index(code) for code in grown.codes]


@settings(max_examples=25)
@given(st.permutations(range(24)), st.integers(0, 24))
def test_neither_order_nor_repetition_matters(order: list[int], cut: int) -> None:
    store = ExemplarStore.initial(some_cases(4, seed=1), CLASSES, per_class=5)
    cases = arriving(8, seed=2, round_number=1)
    once = store.with_cases(cases)
    mixed = [cases[i] for i in order]
    assert same(once, store.with_cases(mixed[:cut]).with_cases(mixed[cut:]))
    assert same(once, store.with_cases(mixed[:cut]).with_cases(mixed))


def test_keeps_a_uniform_sample_of_all_cases() -> None:
    late = 0
    for seed in range(60):
        store = ExemplarStore.initial(some_cases(10, seed=1), CLASSES, per_class=6, seed=seed)
        store = store.with_cases(arriving(20, seed=2, round_number=1))
        late += sum(case_id.startswith("s2") for case_id in store.case_ids)
    assert abs(late / (60 * 18) - 20 / 30) < 0.05


def test_survives_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "exemplars.bin"
    for store in (
        ExemplarStore.initial(some_cases(5, seed=1), CLASSES),
        ExemplarStore.initial(some_cases(0, seed=1), CLASSES),
    ):
        store.save(path)
        loaded = ExemplarStore.load(path)
        assert same(loaded, store)
        assert loaded.images.dtype == np.uint8
        assert loaded.codes == store.codes


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "exemplars.bin"
    with pytest.raises(StateDamaged, match=r"exemplars\.bin"):
        ExemplarStore.load(path)
    ExemplarStore.initial(some_cases(2, seed=1), CLASSES).save(path)
    content = bytearray(path.read_bytes())
    for place in (0, 70, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(StateDamaged, match="checksum"):
            ExemplarStore.load(path)
