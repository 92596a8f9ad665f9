"""The values that pass between cameras, policy, simulator and arm, with their shapes, units and ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from deer_policies.errors import ConfigError

STATIC_SHAPE = (200, 200, 3)
"""Shape of CALVIN's static camera image (rows, columns, RGB)."""
GRIPPER_SHAPE = (84, 84, 3)
"""Shape of CALVIN's gripper camera image (rows, columns, RGB)."""
PROPRIOCEPTION_SIZE = 15
"""CALVIN's robot_obs: tcp xyz (m), tcp euler xyz (rad), gripper width (m), 7 joints (rad), last gripper action."""
ACTION_SIZE = 7
"""xyz, euler xyz, gripper."""
POSE_SIZE = 6
"""xyz, euler xyz."""
MAX_POSITION_STEP_M = 0.02
"""Distance that a translation of 1.0 moves the target in one control step."""
MAX_ROTATION_STEP_RAD = 0.05
"""Angle that a rotation of 1.0 turns the target in one control step."""
CONTROL_RATE_HZ = 30.0
"""CALVIN's control rate."""
MAX_INSTRUCTION_CHARACTERS = 512
"""A longer text is not an instruction; see `checked_instruction`."""

GRIPPER_OPEN = 1.0
GRIPPER_CLOSE = -1.0


def checked_instruction(text: str) -> str:
    """Returns the instruction with outer white space removed.

    Raises:
        ConfigError: if it is not a string, is empty, or is longer than `MAX_INSTRUCTION_CHARACTERS`.
    """
    if not isinstance(text, str):
        raise ConfigError(f"instruction is a {type(text).__name__}; it must be a string")
    stripped = text.strip()
    if not stripped:
        raise ConfigError("instruction is empty; say what the robot shall do, for example 'open the drawer'")
    if len(stripped) > MAX_INSTRUCTION_CHARACTERS:
        raise ConfigError(
            f"instruction has {len(stripped)} characters; at most {MAX_INSTRUCTION_CHARACTERS} are allowed: shorten it"
        )
    return stripped


def checked_image(name: str, image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns `image` if it is uint8 RGB of `shape` (rows, columns, 3), and raises ConfigError otherwise."""
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise ConfigError(f"{name} has dtype {array.dtype}; it must be uint8 RGB in 0..255: convert it first")
    if array.shape != shape:
        raise ConfigError(f"{name} has shape {array.shape}; it must be {shape}: resize it or fix the camera settings")
    return array


def checked_vector(name: str, values: Any, size: int) -> np.ndarray:
    """Returns `values` as a finite float32 vector (size,), and raises ConfigError otherwise."""
    array = np.asarray(values, dtype=np.float32)
    if array.shape != (size,):
        raise ConfigError(f"{name} has shape {array.shape}; it must be ({size},)")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds values that are not finite: {array.tolist()}; nothing is done with it")
    return array


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one control step.

    Attributes:
        rgb_static: (rows, columns, 3) uint8, row 0 at the top; CALVIN's size is `STATIC_SHAPE`.
        rgb_gripper: (rows, columns, 3) uint8; CALVIN's size is `GRIPPER_SHAPE`.
        proprioception: (15,) float32, CALVIN's robot_obs (see `PROPRIOCEPTION_SIZE`).
        instruction: what to do, in natural language.
        time_s: when the images were taken, in seconds of the clock in use.
    """

    rgb_static: np.ndarray
    rgb_gripper: np.ndarray
    proprioception: np.ndarray
    instruction: str
    time_s: float

    def checked(self, info: PolicyInfo) -> Observation:
        """Returns this observation with every field checked against what the policy takes (see `PolicyInfo`)."""
        if not np.isfinite(self.time_s):
            raise ConfigError(f"time_s is {self.time_s}; it must be finite")
        return Observation(
            checked_image("rgb_static", self.rgb_static, info.static_shape),
            checked_image("rgb_gripper", self.rgb_gripper, info.gripper_shape),
            checked_vector("proprioception", self.proprioception, PROPRIOCEPTION_SIZE),
            checked_instruction(self.instruction),
            float(self.time_s),
        )


@dataclass(frozen=True)
class Action:
    """CALVIN's relative action in the robot's base frame.

    Attributes:
        values: (7,) float32 in [-1, 1]: xyz (1.0 = `MAX_POSITION_STEP_M`), euler xyz (1.0 = `MAX_ROTATION_STEP_RAD`),
            gripper (+1 open, -1 close).
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        values = checked_vector("action", self.values, ACTION_SIZE)
        if (np.abs(values) > 1.0).any():
            raise ConfigError(
                f"action {values.tolist()} leaves [-1, 1]: use Action.clipped to limit it, or scale the policy's output"
            )
        if values[6] not in (GRIPPER_OPEN, GRIPPER_CLOSE):
            raise ConfigError(f"the gripper action is {values[6]}; it must be +1 (open) or -1 (close)")
        object.__setattr__(self, "values", values)

    @classmethod
    def clipped(cls, values: Any) -> Action:
        """Limits the pose part to [-1, 1] and maps a positive gripper value to +1 (open), any other to -1 (close).

        Raises:
            ConfigError: if the shape is not (7,) or a value is not finite; a limit can't repair those.
        """
        checked = checked_vector("action", values, ACTION_SIZE)
        limited = np.clip(checked, -1.0, 1.0)
        limited[6] = GRIPPER_OPEN if checked[6] > 0.0 else GRIPPER_CLOSE
        return cls(limited)


@dataclass(frozen=True)
class ActionChunk:
    """Actions for the next control steps, in order; the policy is asked again when they are done.

    Attributes:
        actions: (horizon, 7) float32, each row a valid `Action`.
        rate_hz: control rate that the rows are meant for.
    """

    actions: np.ndarray
    rate_hz: float = CONTROL_RATE_HZ

    def __post_init__(self) -> None:
        shape = np.shape(self.actions)
        if len(shape) != 2 or shape[0] < 1 or shape[1] != ACTION_SIZE:
            raise ConfigError(f"action chunk has shape {shape}; it must be (horizon, {ACTION_SIZE}), horizon from 1")

    @property
    def first(self) -> Action:
        """The action of the next control step."""
        return Action(self.actions[0])

    @property
    def each(self) -> tuple[Action, ...]:
        """The actions one by one."""
        return tuple(Action(row) for row in self.actions)


@dataclass(frozen=True)
class Budget:
    """What one step of the policy may cost; None means no limit. Costs are of the language model alone unless named.

    MAC = multiply-accumulate; 1 GMAC = 1e9 MAC (the DeeR paper prints them as 'GFLOPs').

    Attributes:
        average_llm_gmac: mean over steps of the policy, met by the exit thresholds.
        peak_llm_gmac: of any one step; layers beyond it are never run.
        peak_memory_gib: weights and activations of the whole policy.
        latency_ms: wall time of one step of the whole policy.
    """

    average_llm_gmac: float | None = None
    peak_llm_gmac: float | None = None
    peak_memory_gib: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("average_llm_gmac", "peak_llm_gmac", "peak_memory_gib", "latency_ms"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0.0):
                raise ConfigError(f"budget {name} is {value}; it must be a positive number, or None for no limit")


@dataclass(frozen=True)
class ExitReport:
    """Which exit the policy took at one of its steps, why, and what the step cost.

    Attributes:
        exit_index: position in `PolicyInfo.exit_layers`, 0 for the shallowest.
        exit_layer: 0-based index of the last language model layer that ran.
        distances: criterion values of the exits that were checked, shallowest first.
        thresholds: one for each exit in use; the step stops at the first exit with a distance not above its threshold.
        llm_gmac: multiply-accumulates of the language model layers that ran, in 1e9.
        total_gmac: the same with vision and resampler on the views that were encoded, and every run of the action head.
        full_llm_gmac: the language model's cost if every layer had run.
        full_total_gmac: the whole policy's cost if every layer had run and every view had been encoded.
        latency_ms: wall time of the step.
        encoded_views: for static and gripper view, whether it was encoded at this step; empty where that is not told.
    """

    exit_index: int
    exit_layer: int
    distances: tuple[float, ...]
    thresholds: tuple[float, ...]
    llm_gmac: float
    total_gmac: float
    full_llm_gmac: float
    full_total_gmac: float
    latency_ms: float
    encoded_views: tuple[bool, ...] = ()


@dataclass(frozen=True)
class PolicyInfo:
    """What a policy takes and gives; everything else is read from here and never from constants.

    Attributes:
        name: for reports.
        exit_layers: 0-based layer index of each exit, shallowest first.
        static_shape, gripper_shape: (rows, columns, 3) of the images that it takes.
        rate_hz: control rate that it was trained for.
        horizon: actions in a chunk; the policy is asked at every `horizon`-th control step.
        weights_sha256: of the weights and all else in their file that actions follow from, for reports; empty for a
            policy that was not loaded from one.
    """

    name: str
    exit_layers: tuple[int, ...]
    static_shape: tuple[int, int, int] = STATIC_SHAPE
    gripper_shape: tuple[int, int, int] = GRIPPER_SHAPE
    rate_hz: float = CONTROL_RATE_HZ
    horizon: int = 1
    weights_sha256: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Understanding:
    """What a policy makes of an instruction before it acts.

    Attributes:
        task: the task that it takes the instruction for, or the nearest one if it isn't known.
        known: whether the instruction asks for one of the policy's skills.
        score: how sure it is of that, 0 to 1.
        example: a sentence that asks for the task.
        offers: a few sentences that it would understand, the nearest ones first.
    """

    task: str
    known: bool
    score: float
    example: str
    offers: tuple[str, ...] = ()

    def refusal(self, instruction: str) -> str:
        """Says that an instruction is not understood, what it comes nearest to, and what could be said instead."""
        offers = ", ".join(map(repr, self.offers))
        nearest = f"the nearest task is {self.task}, as in {self.example!r}"
        return (
            f"{instruction!r} is not understood as one of this policy's skills (score {self.score:.2f}; {nearest}); "
            f"say for example {offers}"
        )


@runtime_checkable
class Policy(Protocol):
    """A policy is a function; its recurrent state is a value that the caller keeps and passes back."""

    @property
    def info(self) -> PolicyInfo:
        """What it takes and gives."""
        ...

    @property
    def budget(self) -> Budget:
        """The budget in force."""
        ...

    def set_budget(self, budget: Budget) -> None:
        """Takes effect at the next step. Raises BudgetError, and changes nothing, if it can't be met."""
        ...

    def initial_state(self) -> Any:
        """The state before the first step of a subtask."""
        ...

    def step(self, observation: Observation, state: Any) -> tuple[ActionChunk, Any, ExitReport]:
        """One step of the policy: actions for the next control steps, the state to pass next time, and what it cost.

        Raises:
            ConfigError: if the observation does not fit `info`; the state stays usable.
        """
        ...


@runtime_checkable
class ReduciblePolicy(Policy, Protocol):
    """A policy that can give up its deepest exits at once, for example when memory runs out."""

    @property
    def exits_in_use(self) -> int:
        """How many exits, from the shallowest, a step may reach."""
        ...

    def limit_exits(self, exits: int) -> None:
        """From the next step on, none reaches deeper than the first `exits` exits, until `set_budget` is called.

        The budget stays as it is, and is kept.

        Raises:
            BudgetError: if no action could be taken at the last one of them; nothing changes.
        """
        ...


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A policy that can step several episodes at once, each with its own state and its own exit."""

    def step_batch(
        self, observations: Sequence[Observation], states: Sequence[Any]
    ) -> list[tuple[ActionChunk, Any, ExitReport]]:
        """What `step` gives for each of the observations, bit for bit, whatever stands beside it in the batch.

        Raises:
            ConfigError: as `step`, if any of the observations does not fit; no state changes.
        """
        ...
