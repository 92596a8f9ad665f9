"""What every environment offers: its spec, reset, step, and the state that tasks are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deer_policies.interfaces import Observation

BLOCKS = ("red", "blue", "pink")
"""Block colours in CALVIN's own naming."""
Contact = tuple[str, str]
"""(body, link) that something touches, such as ("table", "base_link"), ("robot", "panda_leftfinger") or ("red", "")."""


@dataclass(frozen=True)
class BlockState:
    """Position (3,) m and quaternion (4,) xyzw of a block in the world, velocities (3,) m/s and rad/s, contacts."""

    position: np.ndarray
    orientation: np.ndarray
    linear_velocity: np.ndarray
    angular_velocity: np.ndarray
    contacts: frozenset[Contact]


@dataclass(frozen=True)
class SceneState:
    """Ground truth that success conditions are computed from (CALVIN's `info`).

    Attributes:
        slider, drawer, button, switch: joint positions in m.
        lightbulb, led: whether they are lit.
        blocks: state of each block, by colour.
        robot_contacts: bodies and links that any part of the robot touches.
    """

    slider: float
    drawer: float
    button: float
    switch: float
    lightbulb: bool
    led: bool
    blocks: dict[str, BlockState]
    robot_contacts: frozenset[Contact]


@dataclass(frozen=True)
class TimeStep:
    """One control step's outcome.

    Attributes:
        rgb_static: (200, 200, 3) uint8, or None for an environment without cameras, or where nobody looked.
        rgb_gripper: (84, 84, 3) uint8, or None.
        robot_obs: (15,) float64, CALVIN's layout (see `deer_policies.interfaces.PROPRIOCEPTION_SIZE`).
        scene_obs: (24,) float64, CALVIN's layout: slider, drawer, button, switch, lightbulb, led, then place and angles
            (xyz, euler xyz) of each block in the order of the scene's file.
        state: ground truth for the task conditions.
        step: control steps since reset.
        time_s: simulated seconds since reset.
    """

    rgb_static: np.ndarray | None
    rgb_gripper: np.ndarray | None
    robot_obs: np.ndarray
    scene_obs: np.ndarray
    state: SceneState
    step: int
    time_s: float

    def observation(self, instruction: str) -> Observation:
        """What a policy gets to see of this step; needs pictures."""
        if self.rgb_static is None or self.rgb_gripper is None:
            raise ValueError(
                "this time step has no pictures to show a policy: take the one that Environment.look() returns, and "
                "make the environment with cameras"
            )
        return Observation(
            self.rgb_static, self.rgb_gripper, self.robot_obs.astype(np.float32), instruction, self.time_s
        )


@dataclass(frozen=True)
class EnvironmentSpec:
    """Fixed facts about an environment.

    Attributes:
        name: such as 'playtable:D'.
        renderer: what draws the pictures; 'none' without cameras.
        control_rate_hz: control steps in a simulated second.
        block_order: colours in the order of scene_obs.
        backend: 'deer_sim', or 'calvin_env' where CALVIN's own package runs it.
    """

    name: str
    renderer: str
    control_rate_hz: float
    block_order: tuple[str, ...]
    backend: str = "deer_sim"


class Environment(Protocol):
    """A robot at a table; several may live in one process."""

    @property
    def spec(self) -> EnvironmentSpec:
        """Fixed facts."""
        ...

    def reset(
        self,
        seed: int | None = None,
        robot_obs: np.ndarray | None = None,
        scene_obs: np.ndarray | None = None,
    ) -> TimeStep:
        """Starts an episode in the given state; what is not given is drawn from the seed.

        The same arguments give the same episode bit for bit, whatever ran before.
        """
        ...

    def step(self, action: np.ndarray, look: bool = True) -> TimeStep:
        """Runs one control step with a relative action (7,), clipped to [-1, 1].

        Without `look` no picture is drawn, which takes most of a step's time; everything else is the same bit for bit.

        Raises:
            ConfigError: if the action is misshapen or not finite; nothing moves.
        """
        ...

    def look(self) -> TimeStep:
        """The time step that was given last, with the pictures that it has or would have had with `look`."""
        ...

    def close(self) -> None:
        """Frees the simulator."""
        ...
