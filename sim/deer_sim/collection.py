"""Expert demonstrations as arrays: the expert acts, is pushed off its way at times, and shows how to get back.

At a disturbed step the action that was executed is not the expert's; the label that is recorded still is what the
expert would have done in that state. So every frame's `rel_actions` is a correct label; `executed` is what was run, and
`disturbed` marks the frames in which a push replaced the expert's action.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deer_policies.errors import ConfigError
from deer_sim.environment import Environment, TimeStep
from deer_sim.expert import Expert
from deer_sim.rollout import MAX_STEPS
from deer_sim.settling import settled
from deer_sim.starts import Start
from deer_sim.tasks import solved

PREFIX_STEPS = 200
"""Control steps that each task of a start's prefix may take."""


@dataclass(frozen=True)
class Disturbance:
    """Random pushes and jitter that replace or blur what the expert does.

    Attributes:
        push_rate: probability at each step that a push begins; 0 switches pushes off.
        push_steps: shortest and longest push in control steps; its direction and speed are drawn once.
        gripper_rate: probability that a push also reverses the gripper.
        jitter: standard deviation of the noise added to the pose part of each executed action.
    """

    push_rate: float = 0.02
    push_steps: tuple[int, int] = (4, 14)
    gripper_rate: float = 0.15
    jitter: float = 0.1

    def __post_init__(self) -> None:
        for name in ("push_rate", "gripper_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"disturbance {name} is {getattr(self, name)}; it is a probability: 0 to 1")
        if not 1 <= self.push_steps[0] <= self.push_steps[1]:
            raise ConfigError(f"disturbance push_steps is {self.push_steps}; it must be (shortest, longest), from 1")
        if not (np.isfinite(self.jitter) and self.jitter >= 0.0):
            raise ConfigError(f"disturbance jitter is {self.jitter}; it must be 0 or more")


@dataclass
class _Push:
    """The push in progress."""

    steps_left: int = 0
    motion: np.ndarray = field(default_factory=lambda: np.zeros(6))
    reverse_gripper: bool = False


class _Disturber:
    """Turns labels into executed actions."""

    def __init__(self, disturbance: Disturbance, rng: np.random.Generator) -> None:
        self._disturbance = disturbance
        self._rng = rng
        self._push = _Push()
        self.pushing = False
        """Whether the last action was a push."""

    def executed(self, label: np.ndarray) -> np.ndarray:
        """The action (7,) float32 to execute where the expert's is `label`."""
        settings, rng, push = self._disturbance, self._rng, self._push
        if push.steps_left == 0 and rng.random() < settings.push_rate:
            push.steps_left = int(rng.integers(settings.push_steps[0], settings.push_steps[1] + 1))
            motion = np.concatenate([rng.normal(size=3), 0.5 * rng.normal(size=3)])
            push.motion = motion / np.abs(motion).max() * rng.uniform(0.4, 1.0)
            push.reverse_gripper = bool(rng.random() < settings.gripper_rate)
        action = label.astype(np.float64)
        self.pushing = push.steps_left > 0
        if self.pushing:
            push.steps_left -= 1
            action[:6] = push.motion
            action[6] = -label[6] if push.reverse_gripper else label[6]
        elif settings.jitter:
            action[:6] += rng.normal(scale=settings.jitter, size=6)
        action[:6] = np.clip(action[:6], -1.0, 1.0)
        return action.astype(np.float32)


@dataclass(frozen=True)
class Episode:
    """One task being done, frame by frame; frame t is what was seen before the t-th action.

    Attributes:
        task, instruction: name of the task and the wording that was given.
        success: whether the task's condition held after the last frame's action.
        rgb_static: (looks, 200, 200, 3) uint8, or None from an environment without cameras.
        rgb_gripper: (looks, 84, 84, 3) uint8, or None.
        robot_obs: (steps, 15) float64.
        scene_obs: (steps, 24) float64.
        rel_actions: (steps, 7) float32, the expert's relative action: the label.
        executed: (steps, 7) float32, the relative action that was run.
        actions: (steps, 7) float64, absolute: tcp pose after the executed action, and its gripper command.
        disturbed: (steps,) bool, where someone else than the expert chose the action; jitter alone does not count.
        looked: (looks,) int, the steps that have pictures.
        planned: (looks, horizon, 7) float32, what the expert would do at these steps and the next ones if it was left
            alone; None where nobody has tried that.
    """

    task: str
    instruction: str
    success: bool
    rgb_static: np.ndarray | None
    rgb_gripper: np.ndarray | None
    robot_obs: np.ndarray
    scene_obs: np.ndarray
    rel_actions: np.ndarray
    executed: np.ndarray
    actions: np.ndarray
    disturbed: np.ndarray
    looked: np.ndarray
    planned: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """Number of frames."""
        return len(self.robot_obs)


class Recorder:
    """Gathers the frames of an episode while it happens, whoever acts."""

    def __init__(self, task: str, instruction: str) -> None:
        self._task = task
        self._instruction = instruction
        self._frames: list[TimeStep] = []
        self._labels: list[np.ndarray] = []
        self._executed: list[np.ndarray] = []
        self._disturbed: list[bool] = []
        self._planned: list[np.ndarray] = []

    def add(
        self,
        step: TimeStep,
        label: np.ndarray,
        executed: np.ndarray,
        disturbed: bool | None = None,
        planned: np.ndarray | None = None,
    ) -> None:
        """Records a control step.

        Args:
            step: what was seen.
            label, executed: what the expert would do, and what was done, (7,) each.
            disturbed: see `Episode`; None if the two differ.
            planned: for a step with pictures: see `Episode`.
        """
        if planned is not None:
            self._planned.append(planned)
        self._frames.append(step)
        self._labels.append(np.array(label, np.float32))
        self._executed.append(np.array(executed, np.float32))
        differs = bool((self._labels[-1] != self._executed[-1]).any())
        self._disturbed.append(differs if disturbed is None else disturbed)

    def finish(self, last: TimeStep, success: bool) -> Episode:
        """The episode; `last` is what was seen after the last action.

        Raises:
            ConfigError: if nothing was recorded.
        """
        if not self._frames:
            raise ConfigError(f"the episode of {self._task} has no frame; add at least one step before finish")
        frames = self._frames
        looked = [index for index, frame in enumerate(frames) if frame.rgb_static is not None]
        static = [frame.rgb_static for frame in frames if frame.rgb_static is not None]
        gripper = [frame.rgb_gripper for frame in frames if frame.rgb_gripper is not None]
        robot_obs = np.stack([frame.robot_obs for frame in frames])
        labels, executed = np.stack(self._labels), np.stack(self._executed)
        reached = np.concatenate([robot_obs[1:, :6], last.robot_obs[None, :6]])
        return Episode(
            task=self._task,
            instruction=self._instruction,
            success=success,
            rgb_static=np.stack(static) if static else None,
            rgb_gripper=np.stack(gripper) if gripper else None,
            robot_obs=robot_obs,
            scene_obs=np.stack([frame.scene_obs for frame in frames]),
            rel_actions=labels,
            executed=executed,
            actions=np.concatenate([reached, np.where(executed[:, 6:] > 0.0, 1.0, -1.0)], axis=1),
            disturbed=np.array(self._disturbed),
            looked=np.array(looked, np.int64),
            planned=np.stack(self._planned) if self._planned else None,
        )


def run_expert(
    environment: Environment, expert: Expert, task: str, first: TimeStep, max_steps: int
) -> tuple[TimeStep, bool]:
    """Lets the expert do one task from `first`, undisturbed, unrecorded: the last state, and whether it is solved."""
    expert.begin(task, first)
    now = first
    for _ in range(max_steps):
        action = expert.action(now)
        now = environment.step(action, look=False)
        expert.executed(action)
        if solved(first.state, now.state, (task,)):
            return now, True
    return now, False


def begin_at(environment: Environment, expert: Expert, start: Start, seed: int) -> tuple[TimeStep, bool]:
    """Resets to a start, lets it settle and has the expert do its prefix: the state then, and whether it did.

    The state has pictures if the environment has cameras.
    """
    now = environment.reset(seed, start.robot_obs, start.scene_obs)
    expert.reset(now)
    now = settled(environment, start.robot_obs, expert.executed)
    reached = True
    for task in start.prefix:
        now, done = run_expert(environment, expert, task, now, PREFIX_STEPS)
        reached = reached and done
    return environment.look(), reached


def collect_episode(
    environment: Environment,
    expert: Expert,
    task: str,
    instruction: str,
    first: TimeStep,
    rng: np.random.Generator,
    disturbance: Disturbance | None = None,
    max_steps: int = MAX_STEPS,
    look_every: int = 1,
) -> Episode:
    """Records the expert doing `task` from `first` until it is solved or `max_steps` are over.

    Args:
        environment: of the expert's scene; without cameras the episode has no images.
        expert: of the same scene; it has seen all that was done since the reset.
        task, instruction: what to do, and the words for it.
        first: the state that the environment is in, see `begin_at`.
        rng: source of the disturbances; the same generator state gives the same episode.
        disturbance: None leaves the expert alone.
        max_steps: limit of recorded control steps.
        look_every: control steps from one picture to the next.
    """
    now = first
    expert.begin(task, now)
    disturber = _Disturber(disturbance, rng) if disturbance else None
    recorder = Recorder(task, instruction)
    success = False
    for step in range(max_steps):
        label = expert.action(now)
        executed = disturber.executed(label) if disturber else label
        recorder.add(now, label, executed, disturbed=disturber is not None and disturber.pushing)
        now = environment.step(executed, look=(step + 1) % look_every == 0)
        expert.executed(executed)
        success = bool(solved(first.state, now.state, (task,)))
        if success:
            break
    return recorder.finish(now, success)
