"""The policy node when cameras freeze, the model freezes or runs out of memory, and what it tells about itself."""

import threading
import time

import numpy as np
import pytest
from deer_msgs.msg import ExitReport as ExitReportMessage
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter

from deer_policies.interfaces import Budget, ExitReport
from deer_ros import graph
from deer_ros.nodes import policy_parameters
from deer_ros.reports import Outcome
from tests.ros.node_rig import DEADLINE_S, JOINTS, wait
from tests.ros.policy_rig import GRIPPER, STATIC, Rig, ScriptedPolicy

PERIOD_S = 0.03
TIMEOUT_S = 0.3


class Faulty(ScriptedPolicy):
    """Has two exits, of which the deeper may want too much memory, and blocks while `gate` is closed."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.exits_in_use, self.fits = 2, 2
        self.reuse = []

    def set_budget(self, budget):
        self.budget, self.exits_in_use = budget, 2

    def limit_exits(self, exits):
        self.exits_in_use = exits

    def set_view_reuse(self, reuse):
        self.reuse.append(reuse.below)

    def step(self, observation, state):
        chunk, _, _ = super().step(observation, state % 90)
        if observation.instruction != "warm up":
            self.gate.wait(DEADLINE_S)
        if self.exits_in_use > self.fits:
            raise MemoryError("no more")
        exit_index = self.exits_in_use - 1
        thresholds = (1.0,) * self.exits_in_use
        report = ExitReport(exit_index, self.info.exit_layers[exit_index], (), thresholds, 1, 2, 3, 4, 0.1)
        return chunk, state + 1, report


@pytest.fixture(scope="module")
def running():
    made = Rig(policy=Faulty(), default_max_steps=100000)
    made.bring_up()
    made.health, made.reports = [], []
    node = made.client.node
    node.create_subscription(
        DiagnosticArray, graph.DIAGNOSTICS, lambda message: made.health.append(message.status[0]), 10
    )
    node.create_subscription(ExitReportMessage, graph.EXIT_REPORT, made.reports.append, 10)
    made.parameters = node.create_client(SetParametersAtomically, "policy/set_parameters_atomically")
    yield made
    made.policy.gate.set()
    made.close()


@pytest.fixture
def rig(running):
    policy = running.policy
    policy.gate.set()
    policy.fits, policy.step_time_s = 2, 0.0
    running.client.set_budget(Budget())
    change(running, model_timeout_s=TIMEOUT_S, frozen_view_m=0.03, frame_timeout_s=1.0)
    rng = np.random.default_rng()
    running.show(noise(rng, STATIC), noise(rng, GRIPPER))  # what a test before may have left frozen is not any more
    for noted in (policy.seen, running.actions, running.reports, running.health):
        del noted[:]
    return running


def change(rig, **values):
    """Sets parameters as `ros2 param set` does; the reason if that is refused."""
    request = SetParametersAtomically.Request(
        parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    )
    assert rig.parameters.wait_for_service(DEADLINE_S)
    result = rig.client.wait_for(rig.parameters.call_async(request), DEADLINE_S, "the parameters").result
    return "" if result.successful else result.reason


def next_health(rig, shown=True):
    """The next report, while good frames come in."""
    del rig.health[:]
    rig.show_until(lambda: rig.health) if shown else wait(lambda: rig.health)
    status = rig.health[0]
    return status, {item.key: item.value for item in status.values}


def next_good_health(rig):
    """The next report without trouble, while good frames come in; a busy machine is late now and then."""
    found = []

    def good():
        found[:] = [item for item in list(rig.health) if item.level == DiagnosticStatus.OK]
        return found

    del rig.health[:]
    rig.show_until(good)
    return {item.key: item.value for item in found[0].values}


def noise(rng, like):
    return rng.integers(0, 256, like.shape, np.uint8)


def swing(step):
    """Joints of an arm that moves about 1 cm with each step."""
    return (JOINTS[0] + 0.03 * step, *JOINTS[1:])


def show_moving(rig, frozen, seconds):
    """An arm that moves to and fro in front of two cameras; the frozen ones go on showing the same."""
    rng, until_s, step = np.random.default_rng(0), time.monotonic() + seconds, 0
    while time.monotonic() < until_s:
        static = STATIC if "static" in frozen else noise(rng, STATIC)
        gripper = GRIPPER if "gripper" in frozen else noise(rng, GRIPPER)
        rig.show(static, gripper, swing(abs(step % 40 - 20)))
        step += 1
        time.sleep(PERIOD_S)


@pytest.mark.parametrize("camera", ["static", "gripper"])
def test_a_camera_that_is_frozen_while_the_arm_moves_ends_the_actions_and_the_goal(rig, camera):
    goal = rig.client.send("go")
    show_moving(rig, (), 0.8)
    before = len(rig.actions)
    assert before > 3
    show_moving(rig, (camera,), 1.5)
    result = goal.result(DEADLINE_S)
    assert result.outcome is Outcome.FAILED
    assert (
        f"camera/{camera}/image_raw: frozen: the same pixels although the tool has moved more than 0.03 m"
        in result.reason
    )
    acted = len(rig.actions) - 1 - before
    assert acted <= 5, "4 cm are reached after four steps"
    assert not rig.actions[-1].action[:6].any()
    status, values = next_health(rig, shown=False)
    assert status.level == DiagnosticStatus.WARN
    assert "frozen" in status.message
    assert int(values[f"dropped: camera/{camera}/image_raw frozen"]) > 10
    other = rig.client.send("go")
    count = len(rig.actions)
    show_moving(rig, (), 0.8)
    assert len(rig.actions) > count, "it acts again as soon as the pixels change"
    assert other.cancel()


def test_cameras_that_show_the_same_to_an_arm_at_rest_are_not_frozen(rig):
    goal = rig.client.send("go")
    rig.show_until(lambda: len(rig.actions) > 20)
    assert goal.cancel()


def test_a_repeated_frame_of_an_arm_that_moved_is_not_a_frozen_one(rig):
    """In lockstep a frame is sent again with the same stamp; the joints are those of that stamp too."""
    goal = rig.client.send("go")
    rig.show(joints=swing(0))
    wait(lambda: rig.actions)
    for _ in range(5):
        rig.show(joints=swing(20), new=False)
        time.sleep(PERIOD_S)
    count = len(rig.actions)
    rig.show(joints=swing(0))
    wait(lambda: len(rig.actions) > count)
    assert goal.cancel()


def test_a_frozen_model_fails_the_goal_and_the_node_recovers_by_itself(rig):
    goal = rig.client.send("go")
    rig.show_until(lambda: len(rig.actions) > 3)
    rig.policy.gate.clear()
    rig.show()
    wait(lambda: rig.node._runner.busy_s > 0.05)
    began_s = time.monotonic()
    result = goal.result(DEADLINE_S)
    assert time.monotonic() - began_s < TIMEOUT_S + 0.3
    assert result.outcome is Outcome.FAILED
    assert result.reason == "the model has not answered for 0.3 s (parameter model_timeout_s)"
    wait(lambda: not rig.actions[-1].action[:6].any())
    status, values = next_health(rig)
    assert status.level == DiagnosticStatus.ERROR
    assert "the model has not answered" in status.message
    assert float(values["model at one step s"]) > TIMEOUT_S
    refused = rig.client.send("go").result(DEADLINE_S)
    assert (refused.outcome, refused.steps) == (Outcome.FAILED, 0)
    assert "new instructions are taken when it answers again" in refused.reason
    count, seen = len(rig.actions), len(rig.policy.seen)
    rig.policy.gate.set()
    wait(lambda: not rig.node._model_trouble)
    time.sleep(0.1)
    assert (len(rig.actions), len(rig.policy.seen)) == (count, seen), "the late answer is dropped"
    goal = rig.client.send("go")
    rig.show_until(lambda: len(rig.actions) > count + 2)
    next_good_health(rig)
    assert goal.cancel()


def test_a_lack_of_memory_costs_the_deeper_exit_and_not_the_goal(rig):
    goal = rig.client.send("go")
    rig.show_until(lambda: rig.reports)
    assert (rig.reports[-1].exit_index, len(rig.reports[-1].thresholds)) == (1, 2)
    rig.policy.fits = 1
    count = len(rig.reports)
    rig.show_until(lambda: len(rig.reports) > count + 3)
    assert (rig.reports[-1].exit_index, len(rig.reports[-1].thresholds)) == (0, 1)
    xs = [round(100 * float(message.action[0])) for message in rig.actions]
    assert xs == list(range(1, len(xs) + 1)), "no step of the recurrent state was lost or made twice"
    status, values = next_health(rig)
    assert status.level == DiagnosticStatus.WARN
    assert "reduced to exit 0 (2 layers) after running out of memory" in status.message
    assert values["reduced"].startswith("reduced to exit 0")
    rig.policy.fits = 2
    rig.client.set_budget(Budget())
    count = len(rig.reports)
    rig.show_until(lambda: len(rig.reports) > count + 1)
    assert rig.reports[-1].exit_index == 1
    assert next_good_health(rig)["reduced"] == "no"
    rig.policy.fits = 0
    rig.show_until(lambda: rig.node._goal is None)
    result = goal.result(DEADLINE_S)
    assert result.outcome is Outcome.FAILED
    assert result.reason == "the model ran out of memory, and there is no smaller exit: MemoryError: no more"


def test_diagnostics_tell_rates_ages_exits_and_memory(rig):
    goal = rig.client.send("go")
    rig.show_until(lambda: len(rig.actions) > 3)
    next_health(rig)
    values = next_good_health(rig)
    assert 5 < float(values["frames rate Hz"]) < 35
    assert float(values["actions rate Hz"]) == pytest.approx(float(values["frames rate Hz"]), abs=3)
    assert float(values["newest frame age s"]) < 0.3
    assert values["actions left in chunk"] == values["requests waiting"] == "0"
    assert float(values["share of exit 1"]) + float(values.get("share of exit 0", 0)) == pytest.approx(1, abs=0.002)
    assert values["latency p50 ms"] == values["latency p99 ms"] == "0.1"
    assert 20 < float(values["resident memory MiB"]) < 20_000
    assert values["budget latency_ms"] == "no limit"
    rig.client.set_budget(Budget(latency_ms=20.0))
    assert next_health(rig)[1]["budget latency_ms"] == "20.0"
    assert goal.cancel()


def test_a_model_slower_than_the_frames_is_told(rig):
    goal = rig.client.send("go")
    rig.show_until(lambda: len(rig.actions) > 3)
    next_health(rig)
    before = int(next_health(rig)[1]["frames without action in time"])
    rig.policy.step_time_s = 0.15
    status, values = next_health(rig)
    assert status.level == DiagnosticStatus.WARN
    missed = int(values["frames without action in time"]) - before
    assert f"{missed} frames had no action before the next one came" in status.message
    rig.policy.step_time_s = 0.0
    next_good_health(rig)
    assert goal.cancel()


def test_parameters_change_at_run_time(rig):
    changed = {
        "max_image_age_s": 0.4,
        "frame_timeout_s": 0.7,
        "default_max_steps": 4,
        "refuse_unknown": False,
        "frozen_view_m": 0.9,
        "model_timeout_s": 2.0,
        "reuse_views_below": 1.5,
    }
    before = {name: rig.node.get_parameter(name).value for name in changed}
    rig.policy.unknown = {"sing"}
    try:
        assert change(rig, **changed) == ""
        wait(lambda: rig.policy.reuse == [1.5])
        goal = rig.client.send("sing")
        show_moving(rig, ("static", "gripper"), 1.5)
        result = goal.result(DEADLINE_S)
        assert (result.outcome, result.steps) == (Outcome.TIMEOUT, 4), result.reason
        assert "no usable frame for 0.7 s" in rig.client.send("sing").result(DEADLINE_S).reason
        rig.policy.gate.clear()
        goal = rig.client.send("sing")
        rig.show()
        wait(lambda: rig.node._runner.busy_s > 2 * TIMEOUT_S)
        rig.policy.gate.set()
        rig.show_until(lambda: rig.node._goal is None)
        assert goal.result(DEADLINE_S).outcome is Outcome.TIMEOUT
        assert rig.node._runner.max_age_s == 0.4
    finally:
        assert change(rig, **before) == ""
    assert "not understood" in rig.client.send("sing").result(DEADLINE_S).reason


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"frozen_view_m": 0.0}, "out of range"),
        ({"frozen_view_m": float("inf")}, "out of range"),
        ({"model_timeout_s": 0.04}, "out of range"),
        ({"model_timeout_s": 61.0}, "out of range"),
        ({"max_image_age_s": 2.0, "default_max_steps": 0}, "out of range"),
        ({"max_image_age_s": 2.0, "threads": 4}, "read-only"),
        ({"refuse_unknown": 1}, "Wrong parameter type"),
    ],
)
def test_bad_parameters_are_refused_and_nothing_changes(rig, wrong, reason):
    before = rig.node._limits
    assert reason in change(rig, **wrong)
    assert rig.node._limits == before
    assert rig.node.get_parameter("max_image_age_s").value == before.max_image_age_s


def test_view_reuse_reaches_a_real_policy(tiny_checkpoint):
    from deer_policies.deer.checkpoint import load_policy

    policy = load_policy(tiny_checkpoint)
    policy_parameters.reuse_views(2.5, policy)
    assert policy._stepper.view_reuse.below == 2.5
