"""Joint trajectories move the simulated arm as a joint_trajectory_controller moves one."""

import numpy as np
import pytest

pytest.importorskip("pybullet")
pytest.importorskip("trajectory_msgs")

from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from deer_ros import graph
from deer_ros.conversions import ns_to_stamp
from deer_ros.quality import COMMANDS
from tests.ros.node_rig import wait
from tests.ros.simulator_rig import REAL_TIME, SimulatorRig, stamp_s

NAMES = [f"panda_joint{index}" for index in range(1, 8)]
TURN = np.array([0.1, -0.1, 0.1, 0.1, -0.1, 0.1, 0.2])


@pytest.fixture(scope="module")
def module_rig():
    made = SimulatorRig(**REAL_TIME, arm_interface="joint_trajectory")
    made.trajectories = made.client.node.create_publisher(JointTrajectory, graph.ARM_TRAJECTORY, COMMANDS)
    wait(lambda: made.trajectories.get_subscription_count())
    yield made
    made.close()


@pytest.fixture
def rig(module_rig):
    module_rig.reset()
    module_rig.start_rad = np.array(module_rig.settle()[:7])
    return module_rig


def send(rig, *points, names=NAMES, velocities=(), stamp=None):
    """Sends points (time in s, positions)."""
    message = JointTrajectory(joint_names=list(names))
    if stamp is not None:
        message.header.stamp = ns_to_stamp(round(stamp * 1e9))
    for time_s, positions in points:
        point = JointTrajectoryPoint(positions=[float(value) for value in positions], velocities=list(velocities))
        point.time_from_start.sec, point.time_from_start.nanosec = int(time_s), round(time_s % 1 * 1e9)
        message.points.append(point)
    rig.trajectories.publish(message)


def path(rig, goal):
    """Follows the last joint until the arm is at `goal` (7,): stamps (s), share of the way, velocities (rad/s)."""
    first = len(rig.joints.received) - 1
    wait(lambda: np.abs(np.array(rig.joints.last.position[:7]) - goal).max() < 2e-3)
    states = [message for _, message in rig.joints.received[first:]]
    way = goal[6] - rig.start_rad[6] or np.nan
    share = [(message.position[6] - rig.start_rad[6]) / way for message in states]
    return (
        np.array([stamp_s(state) for state in states]),
        np.array(share),
        np.array([state.velocity[6] for state in states]),
    )


def test_the_joints_go_there_in_the_given_time_and_stay(rig):
    send(rig, (1.0, rig.start_rad + TURN))
    stamps, share, velocities = path(rig, rig.start_rad + TURN)
    assert stamps[np.argmax(share > 0.9)] - stamps[np.argmax(share > 0.1)] > 0.7
    assert np.median(velocities[(share > 0.2) & (share < 0.8)]) == pytest.approx(TURN[6], abs=0.03)
    rig.joints.next(15)
    np.testing.assert_allclose(rig.joints.last.position[:7], rig.start_rad + TURN, atol=0.01)


def test_joints_may_come_in_any_order(rig):
    goal = rig.start_rad + TURN
    send(rig, (0.5, goal[::-1]), names=NAMES[::-1])
    wait(lambda: np.abs(np.array(rig.joints.last.position[:7]) - goal).max() < 0.01)


def test_with_velocities_it_sets_out_smoothly(rig):
    """A cubic that begins and ends at rest is 1.4 to 1.5 times as fast around the middle as a straight line."""
    send(rig, (1.0, rig.start_rad + 2 * TURN), velocities=[0.0] * 7)
    _, share, velocities = path(rig, rig.start_rad + 2 * TURN)
    assert np.median(velocities[(share > 0.3) & (share < 0.7)]) == pytest.approx(1.44 * 2 * TURN[6], abs=0.06)


def test_the_newest_replaces_the_one_before(rig):
    send(rig, (2.0, rig.start_rad + 4 * TURN))
    rig.joints.next(10)
    send(rig, (0.5, rig.start_rad))
    path(rig, rig.start_rad)
    rig.joints.next(15)
    np.testing.assert_allclose(rig.joints.last.position[:7], rig.start_rad, atol=0.01)


def test_a_stream_of_single_points_is_followed(rig):
    """As a servo loop sends them: each to be reached one period later."""
    for index in range(40):
        send(rig, (0.04, rig.start_rad + TURN * (index + 1) / 40))
        rig.joints.next()
    path(rig, rig.start_rad + TURN)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": NAMES[:6]}, "they must be"),
        ({"names": [*NAMES[:6], "elbow"]}, "they must be"),
        ({"velocities": [0.1]}, "1 velocities"),
        ({"points": [(1.0, np.full(7, np.nan))]}, "finite"),
        ({"points": [(1.0, np.zeros(3))]}, "3 positions"),
        ({"points": []}, "no points"),
        ({"stamp": 1000.0}, "ended"),
    ],
)
def test_trajectories_that_a_controller_would_not_take_are_refused(rig, change, reason):
    points = change.get("points", [(0.5, rig.start_rad + 3 * TURN)])
    send(rig, *points, **{name: value for name, value in change.items() if name != "points"})
    wait(lambda: reason in rig.node._health().trouble)
    rig.joints.next(10)
    np.testing.assert_allclose(rig.joints.last.position[:7], rig.start_rad, atol=2e-3)


def test_inactive_it_forgets_the_trajectory(rig):
    from lifecycle_msgs.msg import Transition

    send(rig, (2.0, rig.start_rad + 4 * TURN))
    rig.joints.next(10)
    rig.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
    held = rig.settle()
    rig.joints.next(15)
    np.testing.assert_allclose(rig.joints.last.position, held, atol=0.01)
    assert np.abs(np.array(held[:7]) - rig.start_rad).max() < 0.6
