"""The simulator node: PlayTable behind the topics of an arm driver and two cameras, in lockstep or in real time.

In lockstep, physics advances one control step when the command that answers the newest frame (same stamp) comes in;
until then the frame is sent again at a slow rate, so that late joiners and lost messages only cost time. In real time,
a timer advances physics at the control rate with the newest command, or with none if that is stale.
"""

from __future__ import annotations

import time

import numpy as np
from deer_msgs.msg import SubtaskDone
from deer_msgs.srv import BeginSubtask, ResetSimulator
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64

from deer_policies.errors import DeerError, SimulatorError
from deer_policies.interfaces import GRIPPER_CLOSE, GRIPPER_OPEN
from deer_ros import graph, parameters
from deer_ros.control.action_codec import Twist, action_from_twist
from deer_ros.conversions import ns_to_stamp, rgb_to_image, stamp_to_ns
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.process import run
from deer_ros.quality import COMMANDS, FRAMES
from deer_sim.environment import Environment, SceneState, TimeStep
from deer_sim.playtable.environment import PlayTable
from deer_sim.tasks import TASKS, solved

LOCKSTEP, REAL_TIME = "lockstep", "real_time"
HALF_OPEN_M = 0.04
"""A commanded opening above this means open; PlayTable's gripper knows open and closed only."""
RESET_GAP_NS = 1_000_000_000
"""Simulated time never goes back: an episode begins this long after the last frame of the one before, and the first one
after 0, which is the stamp of commands that answer no frame."""


class SimulatorNode(Node):
    """Owns one environment; everything happens on the executor's thread."""

    def __init__(self) -> None:
        super().__init__("simulator")
        scene = parameters.text(self, "scene", "D", "scene of PlayTable", ("A", "B", "C", "D"))
        self._mode = parameters.text(self, "mode", LOCKSTEP, "how time advances", (LOCKSTEP, REAL_TIME))
        repeat_s = parameters.number(self, "repeat_period_s", 0.2, 0.01, 10.0, "lockstep: when a frame is sent again")
        self._command_timeout_s = parameters.number(
            self, "command_timeout_s", 0.1, 0.01, 10.0, "real time: a command older than this no longer moves the arm"
        )
        seed = parameters.integer(self, "seed", 0, 0, 2**62, "of the first episode; services can start others")
        self._arm = parameters.arm(self)
        self._environment: Environment = PlayTable(scene)
        self._make_interfaces()
        self._gripper_action = GRIPPER_OPEN
        self._command: tuple[Twist, float] | None = None
        self._subtask: tuple[str, SceneState, int] | None = None
        self._trouble = ""
        self._steps = 0
        self._episode_ns = 0
        self._frame_ns = 0
        self._start(self._environment.reset(seed))
        rate_hz = self._environment.spec.control_rate_hz
        period_s = 1.0 / rate_hz if self._mode == REAL_TIME else repeat_s / 4
        on_timer = self._advance if self._mode == REAL_TIME else self._repeat
        self._sent_s = time.monotonic()
        self._repeat_s = repeat_s
        self.create_timer(period_s, on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        DiagnosticsPublisher(self, self._health)
        self.get_logger().info(f"{self._environment.spec.name} runs in {self._mode}")

    def destroy_node(self) -> None:
        """Frees the simulator with the node."""
        self._environment.close()
        super().destroy_node()

    def _make_interfaces(self) -> None:
        """The gripper's subscription comes before the arm's: of two commands sent together it is handled first."""
        self._clock_publisher = self.create_publisher(ClockMessage, graph.CLOCK, 10)
        self._done_publisher = self.create_publisher(SubtaskDone, graph.SUBTASK_DONE, COMMANDS)
        self._joint_publisher = self.create_publisher(JointState, graph.JOINT_STATES, FRAMES)
        self._static_publisher = self.create_publisher(Image, graph.STATIC_IMAGE, FRAMES)
        self._gripper_publisher = self.create_publisher(Image, graph.GRIPPER_IMAGE, FRAMES)
        self.create_subscription(Float64, graph.GRIPPER_COMMAND, self._on_gripper, COMMANDS)
        self.create_subscription(TwistStamped, graph.ARM_TWIST, self._on_twist, COMMANDS)
        self.create_service(ResetSimulator, graph.SIMULATOR_RESET, self._on_reset)
        self.create_service(BeginSubtask, graph.BEGIN_SUBTASK, self._on_begin)

    def _on_gripper(self, message: Float64) -> None:
        if np.isfinite(message.data):
            self._gripper_action = GRIPPER_OPEN if message.data > HALF_OPEN_M else GRIPPER_CLOSE
        else:
            self._note(f"gripper command {message.data} is not finite and was ignored")

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        try:
            twist = Twist(np.array((linear.x, linear.y, linear.z)), np.array((angular.x, angular.y, angular.z)))
        except DeerError as error:
            self._note(str(error))
            return
        if self._mode == REAL_TIME:
            self._command = (twist, time.monotonic())
        elif stamp_to_ns(message.header.stamp) == self._frame_ns:
            self._step(twist)

    def _advance(self) -> None:
        """Real time: one control step with the newest command."""
        twist = Twist.zero()
        if self._command is not None and time.monotonic() - self._command[1] <= self._command_timeout_s:
            twist = self._command[0]
        self._step(twist)

    def _repeat(self) -> None:
        """Lockstep: sends the frame again if nobody has answered it for a while."""
        if time.monotonic() - self._sent_s >= self._repeat_s:
            self._publish()

    def _step(self, twist: Twist) -> None:
        """Undoes the safety node's conversion at the orientation that it had, from the same joint angles. (The pose in
        robot_obs is CALVIN's, which lags behind the joints by one physics step.)"""
        try:
            _, euler = self._arm.geometry.tcp_pose(self._now.robot_obs[7:14])
            pose = action_from_twist(twist, euler, self._environment.spec.control_rate_hz)
            now = self._environment.step(np.append(pose, self._gripper_action))
        except DeerError as error:
            self._note(str(error))
            return
        self._trouble = ""
        self._steps += 1
        self._show(now)

    def _start(self, first: TimeStep) -> None:
        """Begins an episode, later than every frame before it."""
        self._episode_ns = self._frame_ns + RESET_GAP_NS
        self._gripper_action = GRIPPER_OPEN if first.robot_obs[14] > 0.0 else GRIPPER_CLOSE
        self._command = None
        self._subtask = None
        self._show(first)

    def _show(self, now: TimeStep) -> None:
        """Takes a new state of the world, judges the subtask and publishes everything."""
        self._now = now
        self._frame_ns = self._episode_ns + round(now.time_s * 1e9)
        self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(self._frame_ns)))
        if self._subtask is not None:
            self._judge(*self._subtask)
        self._publish()

    def _judge(self, task: str, start: SceneState, first_step: int) -> None:
        """Says that the subtask is done before the frame that shows it goes out, so that nobody answers that frame."""
        if not solved(start, self._now.state, (task,)):
            return
        message = SubtaskDone(task=task, steps=self._now.step - first_step)
        message.header.stamp = ns_to_stamp(self._frame_ns)
        self._done_publisher.publish(message)
        self._subtask = None
        self.get_logger().info(f"{task} is done after {message.steps} steps")

    def _publish(self) -> None:
        """Sends joint states and images of the present frame."""
        stamp = ns_to_stamp(self._frame_ns)
        robot_obs = self._now.robot_obs
        joints = JointState(name=[*self._arm.joint_names, *self._arm.finger_joint_names])
        joints.header.stamp = stamp
        joints.position = [*robot_obs[7:14].tolist(), robot_obs[6] / 2, robot_obs[6] / 2]
        self._joint_publisher.publish(joints)
        assert self._now.rgb_gripper is not None
        assert self._now.rgb_static is not None
        gripper = rgb_to_image(self._now.rgb_gripper, stamp, "camera_gripper_optical_frame")
        self._gripper_publisher.publish(gripper)
        static = rgb_to_image(self._now.rgb_static, stamp, "camera_static_optical_frame")
        self._static_publisher.publish(static)
        self._sent_s = time.monotonic()

    def _on_reset(self, request: ResetSimulator.Request, response: ResetSimulator.Response) -> ResetSimulator.Response:
        robot_obs = np.array(request.robot_obs) if len(request.robot_obs) else None
        scene_obs = np.array(request.scene_obs) if len(request.scene_obs) else None
        try:
            if request.seed < 0:
                raise SimulatorError(f"seed is {request.seed}; it must be 0 or more")
            first = self._environment.reset(request.seed, robot_obs, scene_obs)
        except DeerError as error:
            response.message = str(error)
            return response
        self._start(first)
        response.accepted = True
        response.environment = self._environment.spec.name
        response.renderer = self._environment.spec.renderer
        return response

    def _on_begin(self, request: BeginSubtask.Request, response: BeginSubtask.Response) -> BeginSubtask.Response:
        if request.task and request.task not in TASKS:
            response.message = f"task {request.task[:60]!r} is unknown; there are {', '.join(TASKS)}"
            return response
        self._subtask = (request.task, self._now.state, self._now.step) if request.task else None
        response.accepted = True
        return response

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            self.get_logger().warning(trouble)
        self._trouble = trouble

    def _health(self) -> Health:
        values = {
            "environment": self._environment.spec.name,
            "renderer": self._environment.spec.renderer,
            "mode": self._mode,
            "control steps": self._steps,
            "subtask": self._subtask[0] if self._subtask else "",
        }
        return Health(self._trouble, values=values)


def main() -> int:
    """Runs the node as a process."""
    return run(SimulatorNode)


if __name__ == "__main__":
    raise SystemExit(main())
