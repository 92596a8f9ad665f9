"""What a scene supplies to the environment: its bodies, and the settings of arm, fixtures and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deer_policies.errors import SimulatorError

Vector = tuple[float, float, float]
Rgba = tuple[float, float, float, float]


@dataclass(frozen=True)
class Surface:
    """A rectangle, `z_m` high, in which a reset puts the centres of blocks; bounds in m."""

    x: tuple[float, float]
    y: tuple[float, float]
    z_m: float

    def __post_init__(self) -> None:
        if not (self.x[0] < self.x[1] and self.y[0] < self.y[1]):
            raise SimulatorError(f"surface x {self.x}, y {self.y} is empty; the lower bound must be the first")


@dataclass(frozen=True)
class ArmSettings:
    """How the arm is driven.

    Attributes:
        initial_joints: (7,) rad after a reset without a state; also what the inverse kinematics' null space tends to.
        lower_limits, upper_limits: (7,) rad, bounds of the joint setpoints.
        joint_force, joint_speed: limits of the arm's motors, N m and rad/s.
        finger_joints: index of the left and the right finger's joint.
        finger_travel_m: travel of each finger.
        close_force, open_force: limits of the fingers' motors, N.
        tool_link: index of the link at the tool centre point.
        position_step_m, rotation_step_rad: what an action of 1 moves the target pose by.
    """

    initial_joints: tuple[float, ...]
    lower_limits: tuple[float, ...]
    upper_limits: tuple[float, ...]
    joint_force: float
    joint_speed: float
    finger_joints: tuple[int, int]
    finger_travel_m: float
    close_force: float
    open_force: float
    tool_link: int
    position_step_m: float
    rotation_step_rad: float

    def __post_init__(self) -> None:
        for name in ("initial_joints", "lower_limits", "upper_limits"):
            if len(getattr(self, name)) != 7:
                raise SimulatorError(f"{name} has {len(getattr(self, name))} values; the arm has 7 joints")


@dataclass(frozen=True)
class FixtureSettings:
    """The table's joints and lights, by name.

    Attributes:
        joints: slider, drawer, button and switch.
        initial: their positions (m) after a reset without a state.
        bulb_link, led_link: the links that light up, the one with the switch and the other with the button.
        bulb_colour, led_colour: (red, green, blue, alpha) in 0..1 of a light that is on.
    """

    joints: tuple[str, str, str, str]
    initial: tuple[float, float, float, float]
    bulb_link: str
    led_link: str
    bulb_colour: Rgba
    led_colour: Rgba


@dataclass(frozen=True)
class Lens:
    """A camera's picture: rows and columns, vertical field of view, and the nearest and farthest distance drawn."""

    rows: int
    columns: int
    fov_deg: float
    near_m: float
    far_m: float


@dataclass(frozen=True)
class CameraSettings:
    """The camera in front of the table, which stands at `eye` and looks at `target`, and the one on the hand."""

    static: Lens
    eye: Vector
    target: Vector
    up: Vector
    gripper: Lens


class Scene(Protocol):
    """One scene; its loaders are called in the order in which they stand here, each time the world is built."""

    @property
    def name(self) -> str:
        """Such as 'playtable:D'."""
        ...

    @property
    def block_order(self) -> tuple[str, ...]:
        """Colours in the order of scene_obs."""
        ...

    @property
    def surfaces(self) -> dict[str, Surface]:
        """Where a reset without a state puts blocks; the choice between them is uniform."""
        ...

    @property
    def arm(self) -> ArmSettings:
        """How the arm is driven."""
        ...

    @property
    def fixtures(self) -> FixtureSettings:
        """The table's joints and lights."""
        ...

    @property
    def cameras(self) -> CameraSettings:
        """What the cameras see."""
        ...

    @property
    def physics_rate_hz(self) -> float:
        """Rate of the physics; a multiple of the control rate."""
        ...

    @property
    def sorted_pairs(self) -> bool:
        """Whether Bullet sorts the pairs of bodies that may touch before it solves their contacts."""
        ...

    @property
    def official_reset(self) -> bool:
        """Whether a reset takes a state over as CALVIN does in a fresh process.

        Then joints go where the state says, even beyond their travel, robot_obs tells an opened gripper, and a button
        that is down counts as just pressed. Otherwise positions are limited to the joints' travel, robot_obs tells the
        gripper action that the state holds, and a button that is down has been pressed before.
        """
        ...

    def load_robot(self, client: Any) -> int:
        """Loads the arm, and what belongs to it, into a physics client; returns its body."""
        ...

    def load_blocks(self, client: Any) -> dict[str, int]:
        """Loads the blocks; returns their bodies by colour, in the order of scene_obs."""
        ...

    def load_table(self, client: Any) -> int:
        """Loads the table; returns its body."""
        ...

    def load_floor(self, client: Any) -> int:
        """Loads the floor; returns its body."""
        ...

    def backdrop(self, lens: Lens, view: Any, projection: Any, wanted: np.ndarray) -> np.ndarray | None:
        """Colours (count, 3) uint8 of the `wanted` pixels (rows, columns), where no body is; None: as drawn.

        `view` and `projection` are pybullet's matrices.
        """
        ...

    def close(self) -> None:
        """Removes the files that the scene has written."""
        ...
