"""Which labels of a chunk are known: those of the states that the expert's own actions have led to."""

import numpy as np
import pytest

from deer_sim.chunks import LARGEST_DEVIATION, chunks

STEPS, HORIZON = 8, 3


def labelled() -> np.ndarray:
    labels = np.random.default_rng(0).uniform(-0.5, 0.5, (STEPS, 7)).astype(np.float32)
    labels[:, 6] = 1.0
    return labels


def known(labels: np.ndarray, executed: np.ndarray, looked: tuple[int, ...] = (0, 3, 6)) -> list[list[bool]]:
    return chunks(labels, executed, np.array(looked), HORIZON)[1].tolist()


def test_chunks_are_the_labels_of_the_next_steps_the_last_ones_repeated_and_unknown():
    labels = labelled()
    found, which = chunks(labels, labels, np.array([0, 3, 6]), HORIZON)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:2].reshape(-1, 7), labels[:6])
    np.testing.assert_array_equal(found[2], labels[[6, 7, 7]])
    assert which.dtype == bool
    assert which.tolist() == [[True] * 3, [True] * 3, [True, True, False]]


def test_a_chunk_may_begin_at_any_step_even_the_last():
    labels = labelled()
    found, which = chunks(labels, labels, np.array([5, 7]), HORIZON)
    np.testing.assert_array_equal(found, labels[[[5, 6, 7], [7, 7, 7]]])
    assert which.tolist() == [[True] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ("pushed", "expected"),
    [
        (3, [[True, False, False], [True, True, False]]),
        (4, [[True, True, False], [True, True, False]]),
        (5, [[True, True, True], [True, True, False]]),
    ],
)
def test_labels_behind_a_push_are_unknown_and_the_one_at_it_is_known(pushed, expected):
    labels = labelled()
    executed = labels.copy()
    executed[pushed, :3] += 0.8
    assert known(labels, executed, (3, 6)) == expected


def test_labels_behind_another_gripper_command_are_unknown():
    labels = labelled()
    executed = labels.copy()
    executed[1, 6] = -1.0
    assert known(labels, executed) == [[True, True, False], [True, True, True], [True, True, False]]


def test_jitter_does_not_count_up_to_the_largest_deviation():
    labels = labelled()
    executed = labels.copy()
    executed[:, :6] += 0.9 * LARGEST_DEVIATION
    assert known(labels, executed) == known(labels, labels)
    executed[:, :6] += 0.2 * LARGEST_DEVIATION
    assert known(labels, executed) == [[True, False, False]] * 3


def test_a_horizon_of_one_knows_every_label():
    labels = labelled()
    found, which = chunks(labels, -labels, np.arange(STEPS), 1)
    np.testing.assert_array_equal(found[:, 0], labels)
    assert which.all()
