"""Which arm it is: the names of its joints, its geometry and the frame of its base."""

from __future__ import annotations

from dataclasses import dataclass, field

from deer_policies.errors import ConfigError
from deer_ros.control.kinematics import JOINT_COUNT, ArmGeometry

FINGER_COUNT = 2


@dataclass(frozen=True)
class ArmParameters:
    """What tells one arm from another; the defaults are a Franka Panda on CALVIN's table.

    Attributes:
        joint_names: seven, base to wrist, as in joint_states.
        finger_joint_names: two; the gripper's opening is their sum.
        geometry: where it stands and how long its tool is.
        base_frame: for the headers of commands.
    """

    joint_names: tuple[str, ...] = tuple(f"panda_joint{index}" for index in range(1, JOINT_COUNT + 1))
    finger_joint_names: tuple[str, ...] = ("panda_finger_joint1", "panda_finger_joint2")
    geometry: ArmGeometry = field(default_factory=ArmGeometry)
    base_frame: str = "panda_link0"

    def __post_init__(self) -> None:
        for name, size in (("joint_names", JOINT_COUNT), ("finger_joint_names", FINGER_COUNT)):
            if len(getattr(self, name)) != size:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {size} names")
