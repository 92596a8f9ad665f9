"""The simulator node: PlayTable behind the topics of an arm driver and two cameras, in lockstep or in real time.

In lockstep, physics advances one control step when the command that answers the newest frame (same stamp) comes in;
until then the frame is sent again at a slow rate, so that late joiners and lost messages only cost time. In real time,
physics advances by the clock with the newest command, or with none if that is stale; where drawing is slow, pictures
are left out, and steps are not.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from deer_msgs.msg import SubtaskDone
from deer_msgs.srv import BeginSubtask, ResetSimulator
from rosgraph_msgs.msg import Clock as ClockMessage

from deer_policies.errors import DeerError, SimulatorError
from deer_ros import graph
from deer_ros.alarm import Alarm
from deer_ros.control.imperfections import Imperfections
from deer_ros.control.wall_steps import WallSteps
from deer_ros.conversions import ns_to_stamp
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.simulated_driver import SimulatedDriver
from deer_ros.nodes.simulator_settings import LOCKSTEP, SIMULATED, SYSTEM, SimulatorSettings
from deer_ros.process import run
from deer_ros.quality import COMMANDS
from deer_sim.environment import SceneState, TimeStep
from deer_sim.playtable.environment import PlayTable
from deer_sim.tasks import TASKS, solved

RESET_GAP_NS = 1_000_000_000
"""Simulated time never goes back: an episode begins this long after the last frame of the one before, and the first one
after 0, which is the stamp of commands that answer no frame."""
TROUBLE_S = 1.5
"""Trouble that did not come again for so long is over; diagnostics go out once a second."""
OLDEST_PICTURE_S = 0.1
"""Where steps are behind the clock, pictures wait for them, but not longer than this."""


class SimulatorNode(ManagedNode):
    """Owns one environment; everything happens on the executor's thread."""

    def __init__(self) -> None:
        self._environment: PlayTable | None = None
        self._driver: SimulatedDriver | None = None
        self._subtask: tuple[str, SceneState, int] | None = None
        super().__init__("simulator")
        self._trouble = ""
        self._troubled_s = 0.0
        self._steps = self._pictures = self._skipped = 0
        self._episode_ns = self._frame_ns = 0
        self._sent_s = 0.0
        self._wall = WallSteps(1.0)
        self._settings = SimulatorSettings(self)
        self._imperfections = self._settings.imperfections(self._on_imperfections)
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Makes the environment and every interface."""
        environment = self._environment = PlayTable(self._settings.scene)
        self._releases.append(environment.close)
        self._now = environment.reset(self._settings.seed)
        self._period_s = 1.0 / environment.spec.control_rate_hz
        self._wall = WallSteps(self._period_s)
        self._clock_publisher = self.create_publisher(ClockMessage, graph.CLOCK, 10)
        self._done_publisher = self.create_publisher(SubtaskDone, graph.SUBTASK_DONE, COMMANDS)
        publishers = (self._clock_publisher, self._done_publisher)
        self._releases += [partial(self.destroy_publisher, publisher) for publisher in publishers]
        self._driver = SimulatedDriver(
            self, self._settings, environment, self._imperfections, self._present_ns, self._on_command, self._note
        )
        self._releases.append(self._driver.close)
        self._alarm = Alarm(self, self._tick)
        self._releases.append(self._alarm.close)
        services = (
            self.create_service(ResetSimulator, graph.SIMULATOR_RESET, self._on_reset),
            self.create_service(BeginSubtask, graph.BEGIN_SUBTASK, self._on_begin),
        )
        self._releases += [partial(self.destroy_service, service) for service in services]
        self._episode_ns = self._frame_ns + RESET_GAP_NS
        self.get_logger().info(f"{environment.spec.name} is ready to run in {self._settings.mode}")

    def start(self) -> None:
        """The world goes on from where it stands."""
        self._running.open(self._present_ns())
        self._go_on()

    def halt(self, reason: str) -> None:
        """The world stands still, and with it the arm; nothing more is published."""
        self._alarm.set(None)
        self._running.halt()

    def release(self) -> None:
        """Gives back the environment and every interface."""
        super().release()
        self._environment = self._driver = self._subtask = None

    def _on_imperfections(self, imperfections: Imperfections) -> None:
        if imperfections == self._imperfections:
            return
        self._imperfections = imperfections
        if self._driver is not None:
            self._driver.change(imperfections)
        self.get_logger().info(f"imperfections: {', '.join(imperfections.present) or 'none'}")

    def _on_command(self, stamp_ns: int) -> None:
        """Lockstep: the command that answers the newest frame advances the world."""
        if self.active and self._settings.mode == LOCKSTEP and stamp_ns == self._frame_ns:
            try:
                self._step(time.monotonic(), look=True)
            except DeerError as error:
                self._note(str(error))
            else:
                self._show_pictures()

    def _tick(self) -> None:
        if self._settings.mode == LOCKSTEP:
            self._repeat()
        else:
            self._catch_up()
        self._set_alarm()

    def _set_alarm(self) -> None:
        lockstep = self._settings.mode == LOCKSTEP
        self._alarm.set(time.monotonic() + self._settings.repeat_period_s / 4 if lockstep else self._wall.next_s)

    def _repeat(self) -> None:
        """Lockstep: sends the frame again if nobody has answered it for a while."""
        if time.monotonic() - self._sent_s >= self._settings.repeat_period_s:
            self._running.publish_joints(self._frame_ns)
            self._show_pictures()

    def _catch_up(self) -> None:
        """Real time: makes the steps that are due, and a picture if that leaves time, or the last one is old."""
        due = self._wall.due(time.monotonic())
        for moment_s in due:
            try:
                self._step(moment_s, look=False)
            except DeerError as error:
                self._note(str(error))
                self._step(moment_s, look=False, stand=True)
        now_s = time.monotonic()
        draws = len(due) > 0 and (now_s < self._wall.next_s or now_s - self._sent_s > OLDEST_PICTURE_S)
        self._skipped += len(due) - draws
        if draws:
            self._show_pictures()

    def _step(self, due_s: float, look: bool, stand: bool = False) -> None:
        """One control step, which was due at a moment of `time.monotonic`; its joint states go out at once.

        Raises:
            DeerError: if the arm can't be driven as commanded; nothing moves.
        """
        end_ns = self._episode_ns + round((self._now.step + 1) * self._period_s * 1e9)
        if self._settings.clock == SYSTEM:
            end_ns = time.time_ns() - round((time.monotonic() - due_s) * 1e9)
        self._now = self._running.stand(look) if stand else self._running.step(end_ns * 1e-9, look)
        if time.monotonic() - self._troubled_s > TROUBLE_S:
            self._trouble = ""
        self._steps += 1
        self._show_state(end_ns)

    @property
    def _running(self) -> SimulatedDriver:
        assert self._driver is not None
        return self._driver

    def _begin_episode(self, first: TimeStep) -> None:
        """Begins an episode, later than every frame before it."""
        self._now, self._subtask = first, None
        self._episode_ns = self._frame_ns + RESET_GAP_NS
        self._running.begin(first)
        self._go_on()

    def _go_on(self) -> None:
        """Shows the present, and lets time pass from now on."""
        self._show_state(self._present_ns())
        self._show_pictures()
        self._wall.begin(time.monotonic())
        self._set_alarm()

    def _present_ns(self) -> int:
        """The present by the clock of stamps; simulated time stands still between steps."""
        if self._settings.clock == SYSTEM:
            return time.time_ns()
        return self._episode_ns + round(self._now.step * self._period_s * 1e9)

    def _show_state(self, stamp_ns: int) -> None:
        """Publishes all but pictures; first the judgement, so that nobody answers the frame that ends the subtask."""
        self._frame_ns = stamp_ns
        if self._settings.clock == SIMULATED:
            self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(stamp_ns)))
        if self._subtask is not None:
            self._judge(*self._subtask)
        self._running.publish_joints(stamp_ns)

    def _show_pictures(self) -> None:
        self._running.publish_pictures(self._frame_ns)
        self._pictures += 1
        self._sent_s = time.monotonic()

    def _judge(self, task: str, start: SceneState, first_step: int) -> None:
        if not solved(start, self._now.state, (task,)):
            return
        message = SubtaskDone(task=task, steps=self._now.step - first_step)
        message.header.stamp = ns_to_stamp(self._frame_ns)
        self._done_publisher.publish(message)
        self._subtask = None
        self.get_logger().info(f"{task} is done after {message.steps} steps")

    def _on_reset(self, request: ResetSimulator.Request, response: ResetSimulator.Response) -> ResetSimulator.Response:
        robot_obs = np.array(request.robot_obs) if len(request.robot_obs) else None
        scene_obs = np.array(request.scene_obs) if len(request.scene_obs) else None
        assert self._environment is not None
        try:
            if not self.active:
                raise SimulatorError("the simulator is not active; activate it first")
            if request.seed < 0:
                raise SimulatorError(f"seed is {request.seed}; it must be 0 or more")
            first = self._environment.reset(request.seed, robot_obs, scene_obs)
        except DeerError as error:
            response.message = str(error)
            return response
        self._begin_episode(first)
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
        """Says what is wrong, once while it lasts."""
        self._troubled_s = time.monotonic()
        if trouble != self._trouble:
            self.get_logger().warning(trouble)
        self._trouble = trouble

    def _health(self) -> Health:
        spec = None if self._environment is None else self._environment.spec
        values = {
            "environment": spec.name if spec else "",
            "renderer": spec.renderer if spec else "",
            "mode": self._settings.mode,
            "control steps": self._steps,
            "periods without a step": self._wall.lost,
            "pictures": self._pictures,
            "steps without a picture": self._skipped,
            "messages lost on purpose": 0 if self._driver is None else self._driver.lost,
            "imperfections": ", ".join(self._imperfections.present),
            "subtask": self._subtask[0] if self._subtask else "",
        }
        return Health(self._trouble, values=values)


def main() -> int:
    """Runs the node as a process."""
    return run(SimulatorNode)


if __name__ == "__main__":
    raise SystemExit(main())
