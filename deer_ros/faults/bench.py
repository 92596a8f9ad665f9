"""An arm bring-up with a simulated arm behind it, moving in circles, on which faults are tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from deer_ros import graph, network
from deer_ros.bringup import Stack, StackConfig, free_domain_id
from deer_ros.control.kinematics import ArmGeometry
from deer_ros.conversions import joint_positions, stamp_to_s
from deer_ros.errors import StackError
from deer_ros.faults.announcement_gate import FIRST_NUMBER, LAST_NUMBER, AnnouncementGate
from deer_ros.faults.motion_record import MotionRecord
from deer_ros.node_processes import NodeProcesses

POLICY_MODULE = "deer_ros.faults.faulty_policy_node"
INSTRUCTION = "open the drawer"
BRINGUP_S = 120.0
LATE_S = 10.0
"""Until a driver that is to be discovered late can be."""
MOVING_S = 15.0
"""It must move so long after it was asked to."""
ARM_NAMES = tuple(f"panda_joint{index}" for index in range(1, 8))


class FaultBench:
    """The simulator is the arm's driver and started apart, as on a robot; the bring-up is `deer up arm`.

    Args:
        policy: that runs while the tool circles; name or path.
        logs: folder for the nodes' output.
        seed: of the simulator.
    """

    def __init__(self, policy: str, logs: Path, seed: int) -> None:
        self.domain_id = free_domain_id()
        self.config = StackConfig(
            bringup="arm",
            overrides={"policy": {"policy": policy}, "safety": {"gripper_output": graph.FLOAT64}},
            domain_id=self.domain_id,
            log_folder=logs,
            respawn=True,
            modules={"policy": POLICY_MODULE},
        )
        self.stack = Stack(self.config)
        self._logs = logs
        self._seed = seed
        self.driver = self._make_driver({})
        self._gate: AnnouncementGate | None = None
        self._gates = 0
        self._geometry = ArmGeometry()
        self._positions: list[tuple[float, ...]] = []
        self._commands: list[tuple[float, float]] = []
        self.states: list[tuple[float, str, str]] = []
        self.reports: list[tuple[float, int]] = []

    def __enter__(self) -> FaultBench:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def client(self) -> Any:
        """A client on the bench's domain."""
        return self.stack.client

    def start(self) -> None:
        """Starts the driver and the bring-up, and listens."""
        self.start_driver()
        self.stack.start(BRINGUP_S)
        self._listen()
        self.bring_up_driver()

    def close(self) -> None:
        """Stops everything."""
        self.stack.stop()
        self.driver.stop()
        self._close_gate()
        self.driver.close()

    def start_driver(self, late: bool = False) -> None:
        """Starts the simulator's process; a late one can't be discovered for `LATE_S`."""
        if late or self._gate is not None:
            self._close_gate()
            self.driver.close()
            self.driver = self._make_driver(self._held_back() if late else {})
        self.driver.start(graph.NodeDescription("simulator", managed=True))

    def bring_up_driver(self) -> None:
        """Makes the simulator active. Raises StackError if it can't be."""
        from deer_ros.supervision import SupervisionSettings, Supervisor

        failures: list[str] = []
        settings = SupervisionSettings(("simulator",), BRINGUP_S)
        supervisor = Supervisor(self.client.node, settings, lambda: None, lambda why, _: failures.append(why))
        try:
            self.until(lambda: supervisor.up or bool(failures), BRINGUP_S, "the simulator")
        finally:
            supervisor.close()
        if failures:
            raise StackError(failures[0])

    def reset(self) -> None:
        """Brings the arm and the table back to where they began, so that no trial begins where the last one ended."""
        self.client.reset(self._seed)

    def set_driver(self, **values: Any) -> None:
        """Changes parameters of the simulator while it runs. Raises StackError if they are refused."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        self.until(self._parameters.service_is_ready, 10.0, "the simulator's parameters")
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        future = self._parameters.call_async(request)
        answers = self.client.wait_for(future, 10.0, "the simulator's parameters").results
        if refused := [answer.reason for answer in answers if not answer.successful]:
            raise StackError(refused[0])

    def trouble(self, what: str) -> None:
        """Tells the policy what is wrong with it from now on."""
        from std_msgs.msg import String

        self.until(lambda: self._troubles.get_subscription_count() > 0, 10.0, "the policy's ears")
        self._troubles.publish(String(data=what))

    def act(self, values: np.ndarray) -> None:
        """Sends an action (7,) as if it were the policy's."""
        from deer_msgs.msg import PolicyAction

        message = PolicyAction()
        message.action = np.asarray(values, np.float32)
        self._actions.publish(message)

    def press(self, pressed: bool) -> None:
        """The e-stop."""
        from std_msgs.msg import Bool

        self._e_stop.publish(Bool(data=pressed))

    def take_over(self, wanted: bool) -> None:
        """An operator takes the arm, or hands it back."""
        from std_srvs.srv import SetBool

        self.until(self._takeover.service_is_ready, 10.0, "the takeover")
        self.client.wait_for(self._takeover.call_async(SetBool.Request(data=wanted)), 10.0, "the takeover")

    def move(self, timeout_s: float = MOVING_S) -> float:
        """Arms and asks for motion until the tool moves; returns when. Raises StackError if it does not."""
        began_s = time.monotonic()
        asked_s = -np.inf
        while time.monotonic() - began_s < timeout_s:
            if time.monotonic() - asked_s > 1.0:
                self._ask()
                asked_s = time.monotonic()
            moved_s = self.record().moves_from(began_s)
            if moved_s is not None:
                return moved_s
            time.sleep(0.05)
        raise StackError(f"the arm did not move within {timeout_s:g} s; {self.states[-1:]}")

    def steady(self) -> bool:
        """Whether the tool has moved for a second without a pause."""
        return self.record().steady(time.monotonic() - 1.0)

    def record(self) -> MotionRecord:
        """What was heard of the arm so far."""
        return MotionRecord(np.array(self._positions[-3000:]), np.array(self._commands[-6000:]))

    @staticmethod
    def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Waits. Raises StackError if the condition does not come true in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise StackError(f"{what} did not come within {timeout_s:g} s")
            time.sleep(0.02)

    def _held_back(self) -> dict[str, str]:
        """Variables of a driver that can't be discovered yet; its gate is made."""
        self._gate = AnnouncementGate(self.domain_id, LATE_S, FIRST_NUMBER + self._gates)
        self._gates = (self._gates + 1) % (LAST_NUMBER - FIRST_NUMBER + 1)
        profile = self._logs / "late.xml"
        profile.write_text(self._gate.profile(network.PROFILE.read_text()))
        return dict.fromkeys(network.PROFILE_VARIABLES, str(profile))

    def _close_gate(self) -> None:
        if self._gate is not None:
            self._gate.close()
            self._gate = None

    def _make_driver(self, variables: dict[str, str]) -> NodeProcesses:
        """The simulator's process, not started, with further variables of the environment."""
        overrides = {"mode": "real_time", "clock": "system", "seed": self._seed, "command_timeout_s": 0.1}
        simulation = graph.CONFIG_FOLDER / "simulation.yaml"
        environment = {**self.stack.environment, **variables}
        return NodeProcesses(simulation, {"simulator": overrides}, environment, self._logs)

    def _ask(self) -> None:
        """The e-stop let go, armed, and with a goal; what is already so stays."""
        try:
            if not self.states or self.states[-1][1] == "STOPPED":
                self.client.arm()
            if self.states and self.states[-1][1] != "ARMED":
                self.client.send(INSTRUCTION, max_steps=100_000)
        except StackError:
            return

    def _listen(self) -> None:
        """Makes every end that a fault may need before one comes, so that discovery takes no time then."""
        from deer_msgs.msg import PolicyAction
        from geometry_msgs.msg import TwistStamped
        from rcl_interfaces.srv import SetParameters
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool, String
        from std_srvs.srv import SetBool

        from deer_ros.faults.faulty_policy_node import TROUBLE
        from deer_ros.quality import COMMANDS, FRAMES

        node = self.client.node
        node.create_subscription(JointState, graph.JOINT_STATES, self._on_joints, FRAMES)
        node.create_subscription(TwistStamped, graph.ARM_TWIST, self._on_twist, COMMANDS)
        self._troubles: Any = node.create_publisher(String, TROUBLE, COMMANDS)
        self._actions: Any = node.create_publisher(PolicyAction, graph.POLICY_ACTION, COMMANDS)
        self._e_stop: Any = node.create_publisher(Bool, graph.E_STOP, COMMANDS)
        self._parameters: Any = node.create_client(SetParameters, "simulator/set_parameters")
        self._takeover: Any = node.create_client(SetBool, graph.SAFETY_TAKEOVER)
        self.client.on_safety_state(lambda report: self.states.append((time.monotonic(), report.state, report.reason)))
        self.client.on_exit_report(lambda report: self.reports.append((time.monotonic(), report.report.exit_index)))

    def _on_joints(self, message: Any) -> None:
        heard_s = time.monotonic()
        positions = np.array(message.position)
        if np.isfinite(positions).all():
            tool, _ = self._geometry.tcp_pose(joint_positions(message, ARM_NAMES))
            self._positions.append((heard_s, stamp_to_s(message.header.stamp), *tool.tolist()))

    def _on_twist(self, message: Any) -> None:
        linear = message.twist.linear
        self._commands.append((time.monotonic(), float(np.linalg.norm((linear.x, linear.y, linear.z)))))
