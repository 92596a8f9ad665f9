"""The policy node: camera frames and an instruction in, one action a control step out; a managed node.

Configure loads the policy and warms it up; active, it follows one instruction at a time, the newest. A policy that
answers with a chunk of actions is shown a frame again once they are executed, one a frame. The model runs on its own
thread, everything else on the executor's, so that a cancellation never waits for the model.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import numpy as np
from deer_msgs.msg import SafetyState, SubtaskDone
from deer_msgs.srv import SetBudget
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.task import Future as RosFuture
from std_msgs.msg import String

from deer_policies.deer.precision import PRECISIONS
from deer_policies.errors import ConfigError, DeerError
from deer_policies.interfaces import Budget, Observation, Policy
from deer_ros import graph, parameters
from deer_ros.control.action_queue import ActionQueue, QueuedAction
from deer_ros.control.goal import Goal, GoalLimits, GoalOutcome, gripper_action_now
from deer_ros.control.policy_runner import PolicyRunner, StaleObservationError, StepRequest, StepResult
from deer_ros.control.watchdog import GateState
from deer_ros.conversions import stamp_to_s
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.inbox import ExecutorInbox
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.frame_input import FrameInput, FrameSettings, RobotFrame
from deer_ros.nodes.goal_server import GoalServer
from deer_ros.nodes.step_publisher import StepPublisher
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED

CHECK_PERIOD_S = 0.05
LATENCIES_KEPT = 300
SAFETY_SILENT_S = 1.0
"""A safety node that says nothing for so long has failed: it repeats its state five times a second."""


BUDGET = {
    "average_llm_gmac": "first budget, language model on average, 1e9 MAC a step; 0: no limit",
    "peak_llm_gmac": "first budget, language model in any one step, 1e9 MAC; 0: no limit",
    "peak_memory_gib": "first budget, weights and activations, GiB; 0: no limit",
    "latency_ms": "first budget, wall time of any one step, ms; 0: no limit",
}
"""Parameters that are the limits of the first `Budget`; if all are 0, it is the checkpoint's."""


def load_named(
    name: str, device: str, threads: int, precision: str, reuse_views_below: float, budget: Budget | None
) -> Policy:
    """Loads a bundled policy by name, or one from a checkpoint's path, to run on that many threads.

    Layers that the budget's peak limits leave out are not loaded; None is the checkpoint's budget.
    """
    import torch

    from deer_policies.deer.checkpoint import load_policy
    from deer_policies.deer.view_reuse import ViewReuse

    torch.set_num_threads(threads)
    policy = load_policy(name, device, budget, precision)
    policy.set_view_reuse(ViewReuse(reuse_views_below))
    return policy


class PolicyNode(ManagedNode):
    """Wires policy, frames and goals together.

    Args:
        load: makes the policy; see `load_named`.
    """

    def __init__(self, load: Callable[[str, str, int, str, float, Budget | None], Policy] = load_named) -> None:
        super().__init__("policy")
        # A parameter that is refused ends the node at once, and with it what these hold.
        self._runner: PolicyRunner | None = None
        self._releases: list[Callable[[], object]] = []
        number, integer, text = parameters.number, parameters.integer, parameters.text
        limits = {name: number(self, name, 0.0, 0.0, 1e6, meaning) or None for name, meaning in BUDGET.items()}
        self._load = partial(
            load,
            text(self, "policy", "deer-nano", "name of a bundled policy, or path of a checkpoint"),
            text(self, "device", "cpu", "where it runs: cpu, cuda, cuda:0, ..."),
            integer(self, "threads", 2, 1, 256, "threads of the model on a CPU"),
            text(self, "precision", "float32", "how the policy's weights are held", tuple(PRECISIONS)),
            number(
                self, "reuse_views_below", 0.0, 0.0, 255.0, "mean pixel change below which a view is not encoded anew"
            ),
            Budget(**limits) if any(limits.values()) else None,
        )
        self._rate_hz = number(
            self, "control_rate_hz", 30.0, 1.0, 1000.0, "rate of the frames; the policy's must agree"
        )
        self._frame_settings = FrameSettings(
            number(self, "image_slop_s", 0.02, 0.0, 1.0, "stamps of one frame may lie this far apart"),
            parameters.flag(self, "reliable_images", False, "ask for lost images again; the cameras must offer it"),
            parameters.size(self, "camera_static_size", "rows and columns of the static camera's images"),
            parameters.size(self, "camera_gripper_size", "rows and columns of the gripper camera's images"),
        )
        self._refuses = parameters.flag(
            self, "refuse_unknown", True, "refuse instructions that the policy's recogniser doesn't take for its skills"
        )
        self._max_age_s = number(self, "max_image_age_s", 0.2, 0.01, 10.0, "older frames are not acted on")
        self._limits = GoalLimits(
            integer(self, "default_max_steps", 360, 1, 1_000_000, "control steps of a goal that names none"),
            number(self, "frame_timeout_s", 2.0, 0.1, 600.0, "a goal fails after this long without a usable frame"),
        )
        self._arm = parameters.arm(self)
        self._goal: Goal | None = None
        self._skipped = 0
        self._handled_ns: int | None = None
        self._newest_stamp_s = -np.inf
        self._last_gripper: float | None = None
        self._stopped = ""
        self._safety_heard_s: float | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._inbox = ExecutorInbox(self)
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Loads the policy and makes every interface."""
        runner = self._runner = PolicyRunner(self._load, self._max_age_s, self._deliver)
        self._releases.append(runner.close)
        info = runner.info
        if not np.isclose(info.rate_hz, self._rate_hz):
            raise ConfigError(
                f"policy {info.name} acts at {info.rate_hz:g} Hz but control_rate_hz is {self._rate_hz:g}"
            )
        self._make_subscriptions()
        self._steps = StepPublisher(self, self._arm.base_frame)
        service = self.create_service(
            SetBudget, graph.SET_BUDGET, self._on_budget, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._goals = GoalServer(self, lambda: self.active, self._begin, self._on_cancel)
        timer = self.create_timer(CHECK_PERIOD_S, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._releases += [
            self._steps.close,
            partial(self.destroy_service, service),
            self._goals.close,
            partial(self.destroy_timer, timer),
        ]
        self.get_logger().info(f"policy {info.name} is ready; exits after layers {[n + 1 for n in info.exit_layers]}")

    def _make_subscriptions(self) -> None:
        """`subtask_done` comes first: it is handled before the frame that it speaks of if both are there."""
        assert self._runner is not None
        done = self.create_subscription(SubtaskDone, graph.SUBTASK_DONE, self._on_done, COMMANDS)
        safety = self.create_subscription(SafetyState, graph.SAFETY_STATE, self._on_safety, LATCHED)
        words = self.create_subscription(String, graph.INSTRUCTION, self._on_instruction, 10)
        self._frames = FrameInput(
            self, self._runner.info, self._arm, self._frame_settings, self._on_frame, self._expects
        )
        self._releases += [partial(self.destroy_subscription, item) for item in (done, safety, words)]
        self._releases.append(self._frames.close)

    def halt(self, reason: str) -> None:
        """Ends the goal."""
        if self._goal is not None:
            self._end(self._goal, GoalOutcome.CANCELLED, reason)

    def release(self) -> None:
        """Gives back the policy and every interface."""
        while self._releases:
            self._releases.pop()()
        self._runner = None

    def _begin(self, goal_id: bytes, instruction: str, max_steps: int) -> Goal:
        """Begins a goal; the one before it ends. It acts from the first frame that comes in from now on."""
        assert self._runner is not None
        if self._stopped:
            raise ConfigError(
                f"the safety node lets nothing pass ({self._stopped}); call safety/arm first, or end the takeover"
            )
        if self._refuses:
            self._refuse_unknown(instruction)
        goal = Goal(
            goal_id=goal_id,
            instruction=instruction,
            max_steps=max_steps or self._limits.default_max_steps,
            began_stamp_s=self._newest_stamp_s,
            progress_s=time.monotonic(),
            queue=ActionQueue(self._runner.info.horizon, 1.0 / self._rate_hz + self._max_age_s),
        )
        if self._goal is not None:
            self._end(self._goal, GoalOutcome.CANCELLED, f"replaced by a newer instruction: {goal.instruction!r}")
        self._goal, self._handled_ns = goal, None
        self.get_logger().info(f"following {goal.instruction!r}")
        return goal

    def _refuse_unknown(self, instruction: str) -> None:
        """A goal in progress goes on; words that nobody understands are no reason to stop or to move."""
        assert self._runner is not None
        found = self._runner.understanding(instruction)
        if found is not None and not found.known:
            raise ConfigError(f"{found.refusal(instruction)}; the node's parameter refuse_unknown turns this check off")

    def _end(self, goal: Goal, outcome: GoalOutcome, reason: str) -> None:
        """Ends a goal: motion first, then the words about it."""
        if goal.end(outcome, reason):
            self._after_end(goal)

    def _after_end(self, goal: Goal) -> None:
        if goal is self._goal:
            self._goal = None
        if goal.steps > 0 and self._last_gripper is not None:
            self._steps.hold(goal, self._last_gripper)
        self._goals.ended(goal)
        assert goal.outcome is not None
        self.get_logger().info(f"{goal.outcome.name} after {goal.steps} steps: {goal.reason}")

    def _on_frame(self, frame: RobotFrame) -> None:
        """Answers a new frame, from the chunk in execution or by asking the policy; one that was answered before and is
        sent again gets the same answer again."""
        self._newest_stamp_s = frame.stamp_s
        goal = self._goal
        if goal is None or self._runner is None:
            return
        if frame.stamp_ns == self._handled_ns:
            self._steps.repeat(frame.stamp_ns)
            return
        if not goal.new_frame(time.monotonic()):
            self._after_end(goal)
            return
        if goal.steps == 0:
            self._last_gripper = gripper_action_now(self._last_gripper, frame.opening_m)
        queued = goal.queue.next(frame.stamp_s)
        if queued is not None:
            self._handled_ns = frame.stamp_ns
            self._answer(goal, frame.stamp_ns, queued)
        elif goal.queue.asks:
            self._handled_ns = frame.stamp_ns
            goal.queue.awaiting = True
            self._runner.submit(StepRequest(goal, self._observation(goal, frame), frame.stamp_ns, frame.received_s))
        else:
            self._skipped += 1

    def _expects(self) -> bool:
        return self._goal is not None and self._goal.queue.expects

    def _observation(self, goal: Goal, frame: RobotFrame) -> Observation:
        """CALVIN's robot_obs from the joints: pose by forward kinematics, opening, joints, last gripper action."""
        position, euler = self._arm.geometry.tcp_pose(frame.joints_rad)
        proprioception = np.array(
            [*position, *euler, frame.opening_m, *frame.joints_rad, self._last_gripper], np.float32
        )
        return Observation(*self._frames.views(frame), proprioception, goal.instruction, frame.stamp_s)

    def _deliver(self, request: StepRequest, future: Future[StepResult]) -> None:
        """On the model's thread: hands the step over to the executor's."""
        self._inbox.post(partial(self._on_step, request, future))

    def _on_step(self, request: StepRequest, future: Future[StepResult]) -> None:
        """Publishes what the policy answered, unless its goal has ended meanwhile."""
        goal, error = request.goal, future.exception()
        if goal.ended or goal is not self._goal:
            return
        if isinstance(error, StaleObservationError):
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            self._handled_ns = None
            goal.queue.awaiting = False
        elif isinstance(error, DeerError):
            self._end(goal, GoalOutcome.FAILED, str(error))
        elif error is not None:
            self.get_logger().error("".join(traceback.format_exception(error)))
            self._end(goal, GoalOutcome.FAILED, f"the policy failed: {type(error).__name__}: {error}")
        else:
            self._publish_step(request, future.result())

    def _publish_step(self, request: StepRequest, result: StepResult) -> None:
        first = request.goal.queue.fill(result.actions, request.observation.time_s)
        self._answer(request.goal, request.stamp_ns, first)
        self._goals.feedback(request.goal, self._steps.report(request, result))
        self._latencies_ms.append(result.report.latency_ms)

    def _answer(self, goal: Goal, stamp_ns: int, queued: QueuedAction) -> None:
        goal.steps += 1
        self._last_gripper = float(queued.action.values[6])
        self._steps.answer(goal, stamp_ns, queued)

    def _on_instruction(self, message: String) -> None:
        """An instruction without an action client, for example from speech."""
        if not self.active:
            self.get_logger().warning("ignored an instruction: the node is not active")
            return
        try:
            self._begin(uuid.uuid4().bytes, message.data, 0)
        except DeerError as error:
            self.get_logger().warning(f"instruction refused: {error}")

    def _on_cancel(self, goal: Goal) -> None:
        self._end(goal, GoalOutcome.CANCELLED, "cancelled by the client")

    def _on_done(self, message: SubtaskDone) -> None:
        goal = self._goal
        if goal is not None and goal.judged_done(stamp_to_s(message.header.stamp), message.task):
            self._after_end(goal)

    def _on_safety(self, message: SafetyState) -> None:
        self._safety_heard_s = time.monotonic()
        closed = message.state in (GateState.STOPPED, GateState.TAKEN_OVER)
        self._close(f"{GateState(message.state).name}: {message.reason}" if closed else "")

    def _close(self, stopped: str) -> None:
        """Why the safety node lets no action pass, or nothing; a goal can't go on then."""
        self._stopped = stopped
        if stopped and self._goal is not None:
            self._end(self._goal, GoalOutcome.FAILED, f"the safety node lets nothing pass: {stopped}")

    async def _on_budget(self, request: SetBudget.Request, response: SetBudget.Response) -> SetBudget.Response:
        """Waits for the model's thread without holding up the executor: it has a callback group of its own, since the
        group of a callback that waits runs nothing else."""
        assert self._runner is not None
        changed: RosFuture = RosFuture()
        try:
            budget = Budget(**{name: getattr(request, name) or None for name in BUDGET})
            future = self._runner.set_budget(budget)
            future.add_done_callback(lambda _: self._inbox.post(partial(changed.set_result, None)))
            await changed
            future.result()
        except DeerError as error:
            response.message = str(error)
            self.get_logger().warning(f"budget refused: {error}")
        else:
            response.accepted = True
            self.get_logger().info(f"budget: {budget}")
        return response

    def _check(self) -> None:
        heard_s = self._safety_heard_s
        if heard_s is not None and time.monotonic() - heard_s > SAFETY_SILENT_S:
            self._close(f"nothing heard of it for {SAFETY_SILENT_S:g} s; is it running?")
        goal = self._goal
        if goal is not None and goal.check(time.monotonic(), self._limits, self._frames.trouble):
            self._after_end(goal)

    def _health(self) -> Health:
        if self._runner is None:
            return Health("not configured")
        values: dict[str, object] = {
            "policy": self._runner.info.name,
            "active": self.active,
            "instruction": self._goal.instruction if self._goal else "",
            "steps": self._goal.steps if self._goal else 0,
            "frames": self._frames.frames,
            "frames the model was too slow for": self._runner.replaced + self._skipped,
        }
        if self._latencies_ms:
            values["latency p50 ms"], values["latency p99 ms"] = np.percentile(self._latencies_ms, (50, 99)).round(2)
        return Health(self._frames.trouble or ("" if self.active else "not active"), values=values)


def main() -> int:
    """Runs the node as a process."""
    return run(PolicyNode)


if __name__ == "__main__":
    raise SystemExit(main())
