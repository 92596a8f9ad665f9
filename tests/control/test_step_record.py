"""What diagnostics are made of: late frames, exits and latencies of the last steps, and the edges of troubles."""

import pytest

from deer_ros.control.edges import OVER_AFTER_S, Edges
from deer_ros.control.step_record import STEPS_KEPT, StepRecord


def test_a_frame_is_late_when_the_next_one_comes_before_its_action():
    record = StepRecord(0.03)
    for now_s in (0.0, 0.03):
        record.due()
        record.acted(now_s)
    assert (record.missed, record.actions.count) == (0, 2)
    for _ in range(3):
        record.due()
    record.acted(0.2)
    record.due()
    assert record.missed == 2


def test_the_end_of_a_goal_lets_its_last_frame_off():
    record = StepRecord(0.03)
    record.due()
    record.ended()
    record.due()
    assert record.missed == 0


def test_exits_and_latencies_are_of_the_last_steps():
    record = StepRecord(0.03)
    assert record.latency_ms(50, 99) == ()
    assert record.exit_shares() == {}
    record.step(2, 100.0)
    assert record.long_steps == 1
    for index in range(STEPS_KEPT):
        record.step(index % 4 == 0, float(index % 30))
    assert record.long_steps == 1
    assert record.exit_shares() == {0: 0.75, 1: 0.25}
    assert record.latency_ms(0, 50, 100) == (0.0, pytest.approx(14.5), 29.0)


def test_a_trouble_is_told_when_it_begins_and_when_it_is_over():
    edges = Edges()
    assert edges.changes({"late": "3 frames"}, 0.0) == (["3 frames"], [])
    assert edges.changes({"late": "4 frames", "slow": "very"}, 1.0) == (["very"], [])
    assert edges.changes({}, 2.0) == ([], [])
    assert edges.changes({"late": "1 frame"}, 3.0) == ([], [])
    assert edges.changes({"late": "1 frame"}, 1.1 + OVER_AFTER_S) == ([], ["slow"])
    assert edges.changes({}, 20.0) == ([], ["late"])
    assert edges.changes({"late": "2 frames"}, 21.0) == (["2 frames"], [])
