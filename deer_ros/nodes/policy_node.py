"""The policy node: camera frames and an instruction in, one action a control step out; a managed node.

Configure loads the policy and warms it up; active, it follows one instruction at a time, the newest. A policy that
answers with a chunk of actions is shown a frame again once they are executed, one a frame. The model runs on its own
thread, everything else on the executor's, so that a cancellation never waits for the model.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import numpy as np
from deer_msgs.msg import SafetyState, SubtaskDone
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String

from deer_policies.errors import ConfigError, DeerError
from deer_policies.interfaces import Budget, Policy
from deer_ros import graph
from deer_ros.control.action_queue import ActionQueue, QueuedAction
from deer_ros.control.goal import Goal, GoalOutcome, gripper_action_now
from deer_ros.control.policy_runner import PolicyRunner, StaleObservationError, StepRequest, StepResult
from deer_ros.control.step_record import StepRecord
from deer_ros.control.watchdog import GateState
from deer_ros.conversions import ns_to_stamp, stamp_to_s
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.inbox import ExecutorInbox
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes import policy_parameters
from deer_ros.nodes.budget_server import BudgetServer
from deer_ros.nodes.frame_input import FrameInput, ReceivedFrame
from deer_ros.nodes.goal_publisher import GoalPublisher
from deer_ros.nodes.goal_server import GoalServer
from deer_ros.nodes.policy_health import PolicyHealth, Situation
from deer_ros.nodes.policy_loading import load_named
from deer_ros.nodes.policy_parameters import PolicyLimits, reuse_views
from deer_ros.nodes.step_publisher import StepPublisher
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED

CHECK_PERIOD_S = 0.05
SAFETY_SILENT_S = 1.0
"""A safety node that says nothing for so long has failed: it repeats its state five times a second."""


class PolicyNode(ManagedNode):
    """Wires policy, frames and goals together.

    Args:
        load: makes the policy; see `load_named`.
    """

    def __init__(self, load: Callable[[str, str, int, str, float, Budget | None], Policy] = load_named) -> None:
        self._runner: PolicyRunner | None = None
        super().__init__("policy")
        self._load_named = load
        self._settings = policy_parameters.declare(self)
        self._limits = policy_parameters.declare_limits(self, self._take_limits)
        self._arm = self._settings.arm
        self._goal: Goal | None = None
        self._handled_ns: int | None = None
        self._newest_ns: int | None = None
        self._last_gripper: float | None = None
        self._stopped = ""
        self._model_trouble = ""
        self._safety_heard_s: float | None = None
        self._record = StepRecord(1.0 / self._settings.control_rate_hz)
        self._told_health = PolicyHealth(self, self._record, self._settings.control_rate_hz)
        self._inbox = ExecutorInbox(self)
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Loads the policy and makes every interface."""
        runner = self._runner = PolicyRunner(self._load, self._limits.max_image_age_s, self._deliver, self._warn)
        self._releases.append(partial(self._close_runner, runner))
        info, rate_hz = runner.info, self._settings.control_rate_hz
        if not np.isclose(info.rate_hz, rate_hz):
            raise ConfigError(f"policy {info.name} acts at {info.rate_hz:g} Hz but control_rate_hz is {rate_hz:g}")
        self._make_subscriptions()
        self._steps = StepPublisher(self, self._arm.base_frame)
        self._told = GoalPublisher(self, info)
        budgets = BudgetServer(self, runner, self._inbox)
        self._goals = GoalServer(self, lambda: self.active, self._begin, self._on_cancel)
        timer = self.create_timer(CHECK_PERIOD_S, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._releases += [
            self._steps.close,
            self._told.close,
            budgets.close,
            self._goals.close,
            partial(self.destroy_timer, timer),
        ]
        self.get_logger().info(f"policy {info.name} is ready; exits after layers {[n + 1 for n in info.exit_layers]}")

    def _load(self) -> Policy:
        one = self._settings
        return self._load_named(
            one.policy, one.device, one.threads, one.precision, self._limits.reuse_views_below, one.budget
        )

    def _make_subscriptions(self) -> None:
        """`subtask_done` comes first: it is handled before the frame that it speaks of if both are there."""
        assert self._runner is not None
        done = self.create_subscription(SubtaskDone, graph.SUBTASK_DONE, self._on_done, COMMANDS)
        safety = self.create_subscription(SafetyState, graph.SAFETY_STATE, self._on_safety, LATCHED)
        words = self.create_subscription(String, graph.INSTRUCTION, self._on_instruction, 10)
        self._frames = FrameInput(
            self, self._runner.info, self._arm, self._settings.frames, self._limits.frozen_view_m, self._on_frame
        )
        self._releases += [partial(self.destroy_subscription, item) for item in (done, safety, words)]
        self._releases.append(self._frames.close)

    def halt(self, reason: str) -> None:
        """Ends the goal."""
        if self._goal is not None:
            self._end(self._goal, GoalOutcome.CANCELLED, reason)

    def release(self) -> None:
        """Gives back the policy and every interface."""
        super().release()
        self._runner = None
        self._model_trouble = ""

    def _close_runner(self, runner: PolicyRunner) -> None:
        if not runner.close():
            self.get_logger().warning("the model is still at a step; its memory is given back when it comes back")

    def _take_limits(self, limits: PolicyLimits) -> None:
        """Changed parameters hold from now on; what the policy itself does changes before its next step."""
        before, self._limits = self._limits, limits
        if self._runner is None:
            return
        self._runner.max_age_s = limits.max_image_age_s
        self._frames.frozen_view_m = limits.frozen_view_m
        if limits.reuse_views_below != before.reuse_views_below:
            self._runner.change(partial(reuse_views, limits.reuse_views_below))

    def _warn(self, words: str) -> None:
        """On the model's thread: hands the words over to the executor's, which logs them."""

        def log() -> None:
            self.get_logger().warning(words)

        self._inbox.post(log)

    def _begin(self, goal_id: bytes, instruction: str, max_steps: int) -> Goal:
        """Begins a goal; the one before it ends. It acts from the first frame that comes in from now on."""
        assert self._runner is not None
        if self._stopped:
            raise ConfigError(
                f"the safety node lets nothing pass ({self._stopped}); call safety/arm first, or end the takeover"
            )
        if self._model_trouble:
            raise ConfigError(f"{self._model_trouble}; new instructions are taken when it answers again")
        if self._limits.refuse_unknown:
            self._refuse_unknown(instruction)
        goal = Goal(
            goal_id=goal_id,
            instruction=instruction,
            max_steps=max_steps or self._limits.goal.default_max_steps,
            began_stamp_s=-np.inf if self._newest_ns is None else stamp_to_s(ns_to_stamp(self._newest_ns)),
            progress_s=time.monotonic(),
            queue=ActionQueue(self._runner.info.horizon, self._longest_gap_s),
        )
        if self._goal is not None:
            self._end(self._goal, GoalOutcome.CANCELLED, f"replaced by a newer instruction: {goal.instruction!r}")
        self._goal, self._handled_ns = goal, None
        self._told.tell(goal, self._newest_ns or 0)
        self.get_logger().info(f"following {goal.instruction!r}")
        return goal

    @property
    def _longest_gap_s(self) -> float:
        return 1.0 / self._settings.control_rate_hz + self._limits.max_image_age_s

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
            self._record.ended()
        if goal.steps > 0 and self._last_gripper is not None:
            self._steps.hold(goal, self._last_gripper)
        self._told.tell(goal, self._newest_ns or 0)
        self._goals.ended(goal)
        assert goal.outcome is not None
        self.get_logger().info(f"{goal.outcome.name} after {goal.steps} steps: {goal.reason}")

    def _on_frame(self, received: ReceivedFrame) -> None:
        """Answers a new frame, from the chunk in execution or by asking the policy; one that was answered before and is
        sent again gets the same answer again."""
        frame = received.frame
        self._newest_ns = frame.stamp_ns
        goal = self._goal
        if goal is None or self._runner is None:
            return
        if frame.stamp_ns == self._handled_ns:
            self._steps.repeat(frame.stamp_ns)
            return
        if not goal.new_frame(time.monotonic()):
            self._after_end(goal)
            return
        self._record.due()
        if goal.steps == 0:
            self._last_gripper = gripper_action_now(self._last_gripper, frame.opening_m)
        queued = goal.queue.next(frame.stamp_s)
        if queued is not None:
            self._handled_ns = frame.stamp_ns
            self._answer(goal, frame.stamp_ns, queued)
        elif goal.queue.asks:
            self._handled_ns = frame.stamp_ns
            goal.queue.awaiting = True
            assert self._last_gripper is not None
            seen = self._frames.parts.observation(frame, self._last_gripper, goal.instruction)
            self._runner.submit(StepRequest(goal, seen, frame.stamp_ns, received.received_s, frame.stamps_ns))

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
            self._record.stale += 1
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
        self._steps.shown(request, result)
        self._answer(request.goal, request.stamp_ns, first)
        self._goals.feedback(request.goal, self._steps.report(request, result))
        self._record.step(result.report.exit_index, result.report.latency_ms)

    def _answer(self, goal: Goal, stamp_ns: int, queued: QueuedAction) -> None:
        goal.steps += 1
        self._record.acted(time.monotonic())
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

    def _check(self) -> None:
        now_s, heard_s = time.monotonic(), self._safety_heard_s
        if heard_s is not None and now_s - heard_s > SAFETY_SILENT_S:
            self._close(f"nothing heard of it for {SAFETY_SILENT_S:g} s; is it running?")
        self._check_model()
        goal = self._goal
        if goal is not None and goal.check(now_s, self._limits.goal, self._frames.trouble):
            self._after_end(goal)

    def _check_model(self) -> None:
        """A model that does not come back ends the goal. Nothing is done to its thread: once it is back, goals are
        taken again, and its late answer is one to a goal that has ended."""
        assert self._runner is not None
        silent = self._runner.busy_s > self._limits.model_timeout_s
        if silent and not self._model_trouble:
            limit_s = self._limits.model_timeout_s
            self._model_trouble = f"the model has not answered for {limit_s:g} s (parameter model_timeout_s)"
            self.get_logger().error(self._model_trouble)
            if self._goal is not None:
                self._end(self._goal, GoalOutcome.FAILED, self._model_trouble)
        elif self._model_trouble and not silent:
            self._model_trouble = ""
            self.get_logger().info("the model answers again")

    def _health(self) -> Health:
        if self._runner is None:
            return Health("not configured")
        dropped = self._frames.dropped + Counter({"frames too old for the model": self._record.stale})
        return self._told_health.report(
            self._runner,
            Situation(self.active, self._goal, self._model_trouble, self._frames.trouble, self._frames.frames, dropped),
        )


def main() -> int:
    """Runs the node as a process."""
    return run(PolicyNode)


if __name__ == "__main__":
    raise SystemExit(main())
