"""The fault campaign: its judgement on made-up motion, its policy, and a few faults on the real bench."""

import json

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.interfaces import ActionChunk, Budget, ExitReport, Observation, PolicyInfo
from deer_ros.cli.main import main
from deer_ros.faults import report
from deer_ros.faults.campaign import BAR_S, Trial, chosen, limits_in_force
from deer_ros.faults.catalogue import FAULTS, RUNS_ON, noticed_s
from deer_ros.faults.circling_policy import RADIUS_M, SPEED_M_S, CirclingPolicy
from deer_ros.faults.motion_record import MotionRecord

PERIOD_S = 1 / 30


def motion(speeds, commands=()):
    """A tool that moves along x with these speeds, one a control period, heard without delay."""
    times = np.arange(len(speeds) + 1) * PERIOD_S
    x = np.concatenate(([0.0], np.cumsum(speeds) * PERIOD_S))
    rows = np.column_stack((times, times, x, np.zeros_like(x), np.zeros_like(x)))
    return MotionRecord(rows, np.array(commands, float).reshape(-1, 2))


def test_the_time_until_it_stands_is_counted_from_the_fault():
    speeds = [0.1] * 60 + [0.05] * 3 + [0.0] * 30
    held = motion(speeds, [(1.9, 0.1), (2.05, 0.02), (2.1, 0.0)]).held(60 * PERIOD_S, 93 * PERIOD_S)
    assert held.after_s == pytest.approx(4 * PERIOD_S)
    assert held.command_s == pytest.approx(0.05)
    assert held.travel_m == pytest.approx(3 * 0.05 * PERIOD_S, abs=0.05 * PERIOD_S)
    assert held.peak_m_s == pytest.approx(0.05)
    assert held.before_m_s == pytest.approx(0.1)


def test_an_arm_that_twitches_later_has_not_held_before():
    speeds = [0.1] * 60 + [0.0] * 10 + [0.02] + [0.0] * 10
    assert motion(speeds).held(2.0, 81 * PERIOD_S).after_s == pytest.approx(12 * PERIOD_S, abs=1e-9)


def test_an_arm_that_moves_to_the_end_has_not_held():
    assert motion([0.1] * 90).held(2.0, 3.0).after_s is None


def test_without_joint_states_nothing_is_judged():
    with pytest.raises(ConfigError, match="no joint state"):
        motion([0.1] * 10).held(5.0, 6.0)


def test_steady_means_without_a_pause():
    assert motion([0.1] * 60).steady(1.0)
    assert not motion([0.1] * 45 + [0.0] + [0.1] * 14).steady(1.0)
    assert not motion([0.1] * 60).steady(1.9), "too few joint states to tell"
    assert motion([0.0] * 30 + [0.1] * 30).moves_from(0.5) == pytest.approx(31 * PERIOD_S)


def test_faults_have_different_names_and_known_limits():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20
    limits = limits_in_force()
    for fault in FAULTS:
        assert (noticed_s(fault, limits) is None) == (fault.limit == RUNS_ON)
    assert chosen(()) == FAULTS
    with pytest.raises(ConfigError, match="'sabotage' is unknown"):
        chosen(("sabotage",))


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({"held_after_s": 0.1 + BAR_S - 0.01, "recovered_s": 1.0}, True),
        ({"held_after_s": 0.1 + BAR_S + 0.01, "recovered_s": 1.0}, False),
        ({"held_after_s": None, "recovered_s": 1.0}, False),
        ({"held_after_s": 0.1, "recovered_s": None}, False),
        ({"held_after_s": 0.1, "recovered_s": 1.0, "failure": "it fell over"}, False),
    ],
)
def test_the_bar(values, good):
    assert Trial("policy-killed", 0.1, **values).within_bar is good


def test_the_table_has_a_row_for_each_fault_that_was_tried():
    trials = [
        Trial("flood", 0.03, 0.02, 0.05, 0.04, 0.006, 0.1, 0.1, "HOLDING: flood", 0.7),
        Trial("flood", 0.03, 0.02, 0.08, 0.04, 0.007, 0.1, 0.1, "HOLDING: flood", 0.9),
        Trial("out-of-memory", None, None, None, 1.9, 0.2, 0.1, 0.1, "ARMED: ", 0.0, (2, 0)),
    ]
    rows = report.table(trials).splitlines()
    assert len(rows) == 4
    assert (
        rows[3]
        == "| somebody's actions at 1000 Hz | at once | 30 | 20, 20 | 50, 80 | 6, 7 | HOLDING: flood | 0.7, 0.9 |"
    )
    assert "exit 2 before, 0 after" in rows[2]
    assert report.summary(trials).startswith("3 of 3 trials")


class Still:
    """A policy that does nothing, in its second exit."""

    info = PolicyInfo("still", (1, 3), horizon=3)
    budget = Budget()
    exits_in_use = 2

    def limit_exits(self, exits):
        self.exits_in_use = exits

    def set_budget(self, budget):
        self.budget = budget

    def initial_state(self):
        return 0

    def step(self, observation, state):
        index = self.exits_in_use - 1
        actions = np.tile(np.array((0, 0, 0, 0, 0, 0, 1), np.float32), (3, 1))
        return ActionChunk(actions), state + 1, ExitReport(index, index, (), (1.0, 1.0), 1.0, 2.0, 3.0, 4.0, 0.1)


def observed(position):
    proprioception = np.zeros(15, np.float32)
    proprioception[:3] = position
    images = np.zeros((200, 200, 3), np.uint8), np.zeros((84, 84, 3), np.uint8)
    return Observation(*images, proprioception, "circle", 0.0)


def test_the_circle_is_closed_and_of_its_radius_and_speed():
    policy, position = CirclingPolicy(Still()), np.array((0.1, -0.1, 0.6))
    state, way = policy.initial_state(), [position]
    for _ in range(round(2 * np.pi * RADIUS_M / SPEED_M_S * 10)):
        chunk, state, _ = policy.step(observed(way[-1]), state)
        for action in chunk.each:
            way.append(way[-1] + action.values[:3] * 0.02)
    way = np.array(way)
    np.testing.assert_allclose(way[-1], way[0], atol=0.015)
    assert np.ptp(way[:, 0]) == pytest.approx(2 * RADIUS_M, abs=5e-3)
    assert np.ptp(way[:, 2]) == 0.0
    speeds = np.linalg.norm(np.diff(way, axis=0), axis=1) * 30
    assert speeds.mean() == pytest.approx(SPEED_M_S, rel=0.04)


def test_troubles_are_what_they_say():
    policy = CirclingPolicy(Still())
    state = policy.initial_state()
    with pytest.raises(ConfigError, match="'headache' is unknown"):
        policy.trouble("headache")
    policy.trouble("raise")
    with pytest.raises(RuntimeError, match="asked for"):
        policy.step(observed(np.zeros(3)), state)
    policy.trouble("memory")
    with pytest.raises(MemoryError):
        policy.step(observed(np.zeros(3)), state)
    policy.limit_exits(1)
    assert policy.step(observed(np.zeros(3)), state)[2].exit_index == 0


@pytest.mark.slow
def test_a_few_faults_on_the_bench(tiny_checkpoint, tmp_path, capsys):
    """Times are judged by `deer faults` on a quiet machine; here the arm has to hold at all and to come back."""
    names = ["model-freezes", "out-of-memory", "nan-actions", "e-stop", "safety-killed"]
    main(["faults", *names, "--policy", str(tiny_checkpoint), "--out", str(tmp_path)])
    trials = {values["fault"]: values for values in json.loads((tmp_path / "trials.json").read_text())}
    assert list(trials) == names
    for name, trial in trials.items():
        assert trial["recovered_s"] is not None, trial
        assert trial["held_after_s"] is not None or name == "out-of-memory", trial
    assert trials["out-of-memory"]["exits"][1] == 0
    assert "not finite" in trials["nan-actions"]["state"] or "action" in trials["nan-actions"]["state"]
    assert trials["e-stop"]["state"] == "STOPPED: the e-stop is pressed"
    main(["faults", *names, "--policy", str(tiny_checkpoint), "--out", str(tmp_path)])
    assert len(json.loads((tmp_path / "trials.json").read_text())) == len(names), "what was tried is not tried again"
    assert "model thread does not return" in capsys.readouterr().out
