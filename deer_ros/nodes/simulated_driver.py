"""The driver's side of a simulated arm: takes commands for the environment, and tells what its sensors see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deer_ros import graph
from deer_ros.control.imperfections import Imperfections
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.delivery import Delivery
from deer_ros.nodes.simulated_arm import ArmDrive, ArmInput, TrajectoryInput, TwistInput
from deer_ros.nodes.simulated_gripper import ActionGripper, GripperInput, TopicGripper
from deer_ros.nodes.simulated_sensors import SimulatedSensors
from deer_ros.nodes.simulator_settings import REAL_TIME, SYSTEM, SimulatorSettings
from deer_ros.nodes.transform_broadcast import TransformBroadcast
from deer_sim.engine.pinhole import gripper_pinhole, static_pinhole
from deer_sim.environment import TimeStep
from deer_sim.playtable.environment import PlayTable
from deer_sim.playtable.robot import FINGER_MAX_M

SENSOR_SEED, COMMAND_SEED = 10, 20
"""Added to the node's seed, so that lines lose different messages."""


class SimulatedDriver:
    """Between one environment, which has been reset, and the topics of an arm and its cameras.

    Args:
        node: that everything belongs to.
        settings: what it offers.
        environment: that it drives.
        imperfections: to begin with.
        present_ns: tells the present by the clock of stamps.
        taken: called with the stamp (ns) of each twist that is taken.
        refused: called with the reason why a command was not taken.

    Raises:
        ConfigError: if an interface needs a package that is not installed.
    """

    def __init__(
        self,
        node: ManagedNode,
        settings: SimulatorSettings,
        environment: PlayTable,
        imperfections: Imperfections,
        present_ns: Callable[[], int],
        taken: Callable[[int], None],
        refused: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._rate_hz = environment.spec.control_rate_hz
        self._present_ns = present_ns
        self._taken = taken
        self._refused = refused
        self._closers: list[Callable[[], object]] = []
        try:
            self._make(node, imperfections)
        except Exception:
            self.close()
            raise

    @property
    def lost(self) -> int:
        """Messages and commands that were lost on the way."""
        return self._sensors.lost + self._commands.lost

    def begin(self, now: TimeStep) -> None:
        """An episode begins with `now`: no command is left from before."""
        self._commands.clear()
        self._arm.hold()
        self._gripper.hold(2 * FINGER_MAX_M if now.robot_obs[14] > 0.0 else 0.0)
        self._velocities = np.zeros(len(self._positions(now)))
        self._take(now)

    def step(self, end_s: float, look: bool) -> TimeStep:
        """Carries the newest commands out for one control step, which ends at `end_s` of the stamps' clock.

        Raises:
            ConfigError: if the arm's command can't be carried out where it is; nothing moves.
        """
        return self._advance(self._arm.drive(self._now.robot_obs[7:14], end_s), look)

    def stand(self, look: bool) -> TimeStep:
        """One control step in which the arm stays."""
        return self._advance(ArmDrive(pose_step=np.zeros(6)), look)

    def publish_joints(self, stamp_ns: int) -> None:
        """Sends joint states, and frames if they are wanted, of the present."""
        broadcast, joints = self._broadcast, self._now.robot_obs[7:14]
        also = None if broadcast is None else lambda: broadcast.publish(joints, stamp_ns)
        self._sensors.publish_joints(self._positions(self._now), self._velocities, stamp_ns, also)

    def publish_pictures(self, stamp_ns: int) -> None:
        """Draws the present if that was not done yet, and sends both pictures."""
        now = self._environment.look()
        assert now.rgb_static is not None
        assert now.rgb_gripper is not None
        self._sensors.publish_pictures(now.rgb_static, now.rgb_gripper, stamp_ns)

    def open(self, stamp_ns: int) -> None:
        """Takes commands from now on, and sends the frames that stay, if they are wanted."""
        self._commands.open()
        if self._broadcast is not None:
            self._broadcast.publish_static(stamp_ns)

    def change(self, imperfections: Imperfections) -> None:
        """Takes over what is wrong from now on."""
        self._sensors.change(imperfections)
        self._commands.change(imperfections.commands)

    def halt(self) -> None:
        """Forgets commands and what is under way, and takes no more until `open`; the gripper keeps its grip."""
        self._commands.shut()
        self._sensors.clear()
        self._arm.hold()
        self._gripper.hold(self._gripper.target_m)

    def close(self) -> None:
        """Takes every interface away."""
        while self._closers:
            self._closers.pop()()

    def _make(self, node: ManagedNode, imperfections: Imperfections) -> None:
        """The gripper's subscription comes before the arm's: of two commands sent together it is handled first."""
        settings = self._settings
        now, lenses = self._environment.look(), self._environment.lenses()
        assert now.rgb_static is not None
        assert now.rgb_gripper is not None
        cameras = static_pinhole(lenses, now.rgb_static.shape), gripper_pinhole(lenses, now.rgb_gripper.shape)
        self._sensors = SimulatedSensors(node, settings.arm, cameras, settings.seed + SENSOR_SEED, imperfections)
        self._closers.append(self._sensors.close)
        self._broadcast: TransformBroadcast | None = None
        if settings.publish_tf:
            poses = [camera.parent_from_optical for camera in cameras]
            self._broadcast = TransformBroadcast(node, settings.arm, *poses)
            self._closers.append(self._broadcast.close)
        self._commands = Delivery(node, settings.seed + COMMAND_SEED)
        self._commands.shut()
        self._commands.change(imperfections.commands)
        self._closers.append(self._commands.close)
        self._gripper = self._gripper_input(node)
        self._closers.append(self._gripper.close)
        self._arm = self._arm_input(node)
        self._closers.append(self._arm.close)
        self.begin(now)

    def _gripper_input(self, node: ManagedNode) -> GripperInput:
        settings = self._settings
        if settings.gripper_interface == graph.FLOAT64:
            return TopicGripper(node, self._commands, self._refused)
        return ActionGripper(
            node,
            settings.gripper_interface,
            settings.arm.finger_joint_names,
            settings.tolerances,
            lambda: node.active,
            self._commands,
        )

    def _arm_input(self, node: ManagedNode) -> ArmInput:
        settings = self._settings
        if settings.arm_interface == graph.JOINT_TRAJECTORY:
            return TrajectoryInput(node, settings.arm, self._commands, self._present, self._refused)
        timeout_s = settings.command_timeout_s if settings.mode == REAL_TIME else np.inf
        stamped = settings.clock == SYSTEM
        return TwistInput(
            node, settings.arm, self._rate_hz, timeout_s, stamped, self._commands, self._taken, self._refused
        )

    def _advance(self, drive: ArmDrive, look: bool) -> TimeStep:
        before = self._positions(self._now)
        now = self._environment.drive(self._gripper.target_m, drive.pose_step, drive.joints_rad, look)
        self._velocities = (self._positions(now) - before) * self._rate_hz
        self._take(now)
        return now

    def _present(self) -> tuple[float, np.ndarray]:
        return self._present_ns() * 1e-9, self._now.robot_obs[7:14]

    def _take(self, now: TimeStep) -> None:
        self._now = now
        self._gripper.observe(float(now.robot_obs[6]), now.time_s)

    def _positions(self, now: TimeStep) -> np.ndarray:
        """(9,): joints in rad and fingers in m."""
        width = now.robot_obs[6]
        return np.array((*now.robot_obs[7:14], width / 2, width / 2))
