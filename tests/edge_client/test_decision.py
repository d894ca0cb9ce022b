import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_client.decision import combined_scores

NEVER = -np.inf


def decided(program: list[float], chip: list[float]) -> int:
    scores = combined_scores(np.array([program], np.float32), np.array([chip], np.float32), 96)
    assert scores.shape == (1, len(chip)) and not np.isnan(scores).any()
    return int(scores.argmax())


def test_heads_that_agree() -> None:
    assert decided([3.0, 0.0], [5.0, -5.0]) == 0


def test_the_surer_head_decides() -> None:
    assert decided([8.0, 0.0], [0.0, 10.0]) == 0
    assert decided([0.5, 0.0], [0.0, 30.0]) == 1


def test_a_later_class_wins_where_the_chip_prefers_it() -> None:
    assert decided([8.0, 0.0], [4.0, -3.0, 5.0]) == 2
    assert decided([8.0, 0.0], [6.0, -3.0, 5.0]) == 0


def test_a_class_that_nobody_taught_is_no_answer() -> None:
    assert decided([1.0, 0.0], [-3.0, -4.0, NEVER]) == 0
    assert decided([1.0, 0.0], [NEVER, NEVER, NEVER]) == 0


def test_a_class_that_the_chip_was_not_taught_is_the_programs() -> None:
    assert decided([0.0, 5.0, 0.0], [10.0, NEVER, -10.0]) == 1


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=6))
def test_a_silent_chip_changes_nothing(logits: list[float]) -> None:
    scores = combined_scores(
        np.array([logits], np.float32), np.zeros((1, len(logits)), np.float32), 96
    )
    # Of logits that are as good as equal either may come out.
    assert logits[int(scores.argmax())] >= max(logits) - 1e-4
