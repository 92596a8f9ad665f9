"""A Python client of a running stack: resets the simulator, sends instructions, changes the budget, and listens."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from deer_policies.errors import BudgetError, SimulatorError
from deer_policies.interfaces import Budget
from deer_ros import graph, network
from deer_ros.endpoints import CLIENT_NAME
from deer_ros.errors import NoAnswerError, StackError
from deer_ros.goal_handle import POLL_S, GoalHandle
from deer_ros.reports import (
    FollowResult,
    Frame,
    SafetyReport,
    SimulatorInfo,
    StepAction,
    StepFeedback,
    StepReport,
)
from deer_ros.security.enforcing import client_arguments

REPEAT_S = 1.5
"""A request that may be made twice is made again if it is not answered within this time."""


class StackClient:
    """Talks to the nodes over ROS 2 from any process on the same domain; a context manager.

    Its own thread spins the ROS side. Callbacks given to `on_frame`, `on_action`, `on_exit_report` and
    `on_safety_state` run in that thread: they must be quick and must not call the client. `on_feedback` runs in the
    thread that waits for the result and may call anything.

    Args:
        domain_id: ROS domain; None takes ROS_DOMAIN_ID.
        check: called while waiting; raises if the stack can no longer answer (`Stack.check`).
        reach: network that the process gets with its first node; None as `deer_ros.network.enter` says.
        security: ROS arguments of its enclave; None takes the operator's if the environment turns SROS 2 on.
    """

    def __init__(
        self,
        domain_id: int | None = None,
        check: Callable[[], None] | None = None,
        reach: str | None = None,
        security: Sequence[str] | None = None,
    ) -> None:
        network.enter(reach)
        from deer_msgs.action import FollowInstruction
        from deer_msgs.srv import BeginSubtask, ResetSimulator, SetBudget
        from rclpy.action import ActionClient
        from rclpy.executors import SingleThreadedExecutor
        from std_srvs.srv import Trigger

        self._context, self.node = _joined(domain_id, client_arguments() if security is None else list(security))
        self._check = check
        self._follow: Any = ActionClient(self.node, FollowInstruction, graph.FOLLOW_INSTRUCTION)
        self._reset: Any = self.node.create_client(ResetSimulator, graph.SIMULATOR_RESET)
        self._begin: Any = self.node.create_client(BeginSubtask, graph.BEGIN_SUBTASK)
        self._budget: Any = self.node.create_client(SetBudget, graph.SET_BUDGET)
        self._stop: Any = self.node.create_client(Trigger, graph.SAFETY_STOP)
        self._arm: Any = self.node.create_client(Trigger, graph.SAFETY_ARM)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="stack_client", daemon=True)
        self._thread.start()

    def __enter__(self) -> StackClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the ROS graph."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def check(self) -> None:
        """Raises StackError if the stack can no longer answer."""
        if self._check is not None:
            self._check()

    def wait_ready(self, timeout_s: float = 60.0, simulator: bool = True) -> None:
        """Waits until the servers are there.

        Raises:
            StackError: naming what is missing.
        """
        servers: dict[str, Callable[[], bool]] = {
            graph.FOLLOW_INSTRUCTION: self._follow.server_is_ready,
            graph.SET_BUDGET: self._budget.service_is_ready,
            graph.SAFETY_ARM: self._arm.service_is_ready,
        }
        if simulator:
            servers[graph.SIMULATOR_RESET] = self._reset.service_is_ready
        deadline = time.monotonic() + timeout_s
        while missing := [name for name, ready in servers.items() if not ready()]:
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"no server for {', '.join(missing)} within {timeout_s:g} s; is the stack running?")
            time.sleep(POLL_S)

    def change_state(self, node: str, transition: int, timeout_s: float = 120.0) -> None:
        """Asks a managed node for a transition (`lifecycle_msgs.msg.Transition.TRANSITION_...`).

        Raises:
            StackError: if the node refuses; its log says why.
        """
        from lifecycle_msgs.msg import State, Transition
        from lifecycle_msgs.srv import ChangeState, GetState

        reached = {
            Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
            Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
            Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
            Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
        }

        changer: Any = self.node.create_client(ChangeState, f"{node}/change_state")
        getter: Any = self.node.create_client(GetState, f"{node}/get_state")
        request = ChangeState.Request(transition=Transition(id=transition))
        deadline, what = time.monotonic() + timeout_s, f"the transition of node {node}"
        try:
            while True:
                left_s = deadline - time.monotonic()
                try:
                    response = self._call(changer, request, min(2 * REPEAT_S, left_s), what)
                    break
                except NoAnswerError:
                    if left_s <= 2 * REPEAT_S:
                        raise
                # An answer that got lost: the state tells whether the transition was made.
                state = self._call(getter, GetState.Request(), deadline - time.monotonic(), what, repeat=True)
                if state.current_state.id == reached.get(transition):
                    return
        finally:
            self.node.destroy_client(changer)
            self.node.destroy_client(getter)
        if not response.success:
            raise StackError(f"node {node} refused transition {transition}; its log says why")

    def reset(
        self, seed: int, robot_obs: Sequence[float] | None = None, scene_obs: Sequence[float] | None = None
    ) -> SimulatorInfo:
        """Starts a new episode: the given state, and the rest from the seed. Raises SimulatorError if refused."""
        from deer_msgs.srv import ResetSimulator

        request = ResetSimulator.Request(
            seed=seed,
            robot_obs=[] if robot_obs is None else [float(value) for value in robot_obs],
            scene_obs=[] if scene_obs is None else [float(value) for value in scene_obs],
        )
        response = self._call(self._reset, request, 60.0, "the reset")
        if not response.accepted:
            raise SimulatorError(response.message)
        return SimulatorInfo(response.environment, response.renderer)

    def begin_subtask(self, task: str) -> None:
        """Takes the present state as the start that `task` is judged against. Raises SimulatorError if refused."""
        from deer_msgs.srv import BeginSubtask

        response = self._call(self._begin, BeginSubtask.Request(task=task), 10.0, "the start of the subtask")
        if not response.accepted:
            raise SimulatorError(response.message)

    def send(
        self, instruction: str, max_steps: int = 0, on_feedback: Callable[[StepFeedback], None] | None = None
    ) -> GoalHandle:
        """Sends an instruction and returns at once. `max_steps` 0 takes the policy node's default."""
        from deer_msgs.action import FollowInstruction

        early: list[StepFeedback] = []
        handles: list[GoalHandle] = []
        lock = threading.Lock()

        def receive(message: Any) -> None:
            with lock:
                if handles:
                    handles[0].feedback.put(_step_feedback(message.feedback))
                else:
                    early.append(_step_feedback(message.feedback))

        self._await_server(self._follow.server_is_ready, 10.0, "the policy node")
        goal = FollowInstruction.Goal(instruction=instruction, max_steps=max_steps)
        handle = self.wait_for(self._follow.send_goal_async(goal, receive), 10.0, "the instruction")
        with lock:
            handles.append(GoalHandle(self, handle, on_feedback))
            for feedback in early:
                handles[0].feedback.put(feedback)
        return handles[0]

    def follow(
        self,
        instruction: str,
        on_feedback: Callable[[StepFeedback], None] | None = None,
        max_steps: int = 0,
        timeout_s: float | None = None,
    ) -> FollowResult:
        """Sends an instruction and waits for its end; see `GoalHandle.result`."""
        return self.send(instruction, max_steps, on_feedback).result(timeout_s)

    def set_budget(self, budget: Budget) -> None:
        """Changes the budget from the next step on. Raises BudgetError if the policy can't meet it."""
        from deer_msgs.srv import SetBudget

        request = SetBudget.Request(
            average_llm_gmac=budget.average_llm_gmac or 0.0,
            peak_llm_gmac=budget.peak_llm_gmac or 0.0,
            peak_memory_gib=budget.peak_memory_gib or 0.0,
            latency_ms=budget.latency_ms or 0.0,
        )
        response = self._call(self._budget, request, 10.0, "the budget", repeat=True)
        if not response.accepted:
            raise BudgetError(response.message)

    def stop(self) -> str:
        """Emergency stop: nothing passes the safety node until `arm`. Returns what it answers."""
        return self._trigger(self._stop, "the stop")

    def arm(self) -> str:
        """Lets commands pass the safety node again. Raises StackError if it refuses."""
        return self._trigger(self._arm, "arming")

    def on_frame(self, callback: Callable[[Frame], None]) -> None:
        """Calls back with each new pair of camera images (same stamp); a frame that is sent again comes once."""
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import Image

        from deer_ros.control.frame_sync import FrameSync
        from deer_ros.conversions import image_to_rgb, stamp_to_s

        sync = FrameSync(("static", "gripper"))

        def receive(channel: str, message: Any) -> None:
            frames = sync.add(channel, stamp_to_s(message.header.stamp), image_to_rgb(message), time.monotonic())
            if frames is not None:
                callback(Frame(frames.stamp_s, frames.values["static"], frames.values["gripper"]))

        quality = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.node.create_subscription(Image, graph.STATIC_IMAGE, lambda message: receive("static", message), quality)
        self.node.create_subscription(Image, graph.GRIPPER_IMAGE, lambda message: receive("gripper", message), quality)

    def on_action(self, callback: Callable[[StepAction], None]) -> None:
        """Calls back for each frame that is answered with an action, again if it is answered again."""
        from deer_msgs.msg import PolicyAction

        from deer_ros.conversions import stamp_to_s

        def receive(message: Any) -> None:
            stamp_s = stamp_to_s(message.header.stamp)
            # Standstill at the end of a goal answers no frame and has no stamp.
            if stamp_s > 0.0:
                callback(StepAction(stamp_s, message.step, message.chunk_index))

        self.node.create_subscription(PolicyAction, graph.POLICY_ACTION, receive, 50)

    def on_exit_report(self, callback: Callable[[StepReport], None]) -> None:
        """Calls back each time the policy was asked, which is once a chunk of actions."""
        from deer_msgs.msg import ExitReport as ExitReportMessage

        from deer_ros.conversions import exit_report_from_message, stamp_to_s

        def receive(message: Any) -> None:
            stamp_s = stamp_to_s(message.header.stamp)
            report = exit_report_from_message(message)
            callback(StepReport(stamp_s, message.step, message.exit_count, message.budget_average_llm_gmac, report))

        self.node.create_subscription(ExitReportMessage, graph.EXIT_REPORT, receive, 50)

    def on_safety_state(self, callback: Callable[[SafetyReport], None]) -> None:
        """Calls back with the present state of the safety node and then with each change."""
        from deer_msgs.msg import SafetyState

        from deer_ros.control.watchdog import GateState
        from deer_ros.quality import LATCHED

        told: list[SafetyReport] = []

        def receive(message: Any) -> None:
            report = SafetyReport(GateState(message.state).name, message.reason)
            if told != [report]:
                told[:] = [report]
                callback(report)

        self.node.create_subscription(SafetyState, graph.SAFETY_STATE, receive, LATCHED)

    def wait_for(self, future: Any, timeout_s: float, what: str) -> Any:
        """Waits for a future of the ROS side. Raises StackError, naming `what`, if the stack ends or the time is up."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = time.monotonic() + timeout_s
        while not done.wait(POLL_S):
            self.check()
            if time.monotonic() > deadline:
                raise NoAnswerError(f"no answer about {what} within {timeout_s:g} s")
        return future.result()

    def _call(self, client: Any, request: Any, timeout_s: float, what: str, repeat: bool = False) -> Any:
        """The answer of a service. Under load, ROS 2 loses one now and then: a request that may be made twice without
        harm is made again after `REPEAT_S`."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._await_server(client.service_is_ready, 10.0, client.srv_name)
            left_s = deadline - time.monotonic()
            last = not repeat or left_s <= REPEAT_S
            try:
                return self.wait_for(client.call_async(request), left_s if last else REPEAT_S, what)
            except NoAnswerError:
                if last:
                    raise

    def _trigger(self, client: Any, what: str) -> str:
        from std_srvs.srv import Trigger

        response = self._call(client, Trigger.Request(), 5.0, what, repeat=True)
        if not response.success:
            raise StackError(response.message)
        return str(response.message)

    def _await_server(self, ready: Callable[[], bool], timeout_s: float, name: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"{name} is not there; start the stack with `deer up`")
            time.sleep(POLL_S)

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


def _joined(domain_id: int | None, arguments: list[str]) -> tuple[Any, Any]:
    """A ROS context and a node of a name of its own. Raises StackError if ROS does not let this process take part."""
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    try:
        rclpy.init(
            args=arguments or None,
            context=context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        name = f"{CLIENT_NAME}_{uuid.uuid4().hex[:8]}"
        return context, rclpy.create_node(name, context=context, use_global_arguments=False)
    except rclpy_implementation.RCLError as error:
        context.try_shutdown()
        raise StackError(f"ROS 2 does not let this process take part: {error}") from error


def _step_feedback(message: Any) -> StepFeedback:
    return StepFeedback(
        step=int(message.step),
        exit_index=int(message.exit_index),
        exit_layer=int(message.exit_layer),
        distances=tuple(float(value) for value in message.distances),
        llm_gmac=float(message.llm_gmac),
        full_llm_gmac=float(message.full_llm_gmac),
        latency_ms=float(message.latency_ms),
    )
