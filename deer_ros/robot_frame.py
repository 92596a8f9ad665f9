"""From messages of cameras and joints to what the policy is shown; the live node and a replay both go through here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deer_policies.interfaces import Observation
from deer_ros import graph
from deer_ros.control.arm import ArmParameters
from deer_ros.control.camera_fit import CameraFit
from deer_ros.conversions import image_to_rgb, joint_positions, stamp_to_ns, stamp_to_s

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time

STATIC, GRIPPER, JOINTS = "static", "gripper", "joints"
CHANNELS = (STATIC, GRIPPER, JOINTS)
"""The parts of a frame; the first one leads: its stamp is the frame's."""
TOPICS = {STATIC: graph.STATIC_IMAGE, GRIPPER: graph.GRIPPER_IMAGE, JOINTS: graph.JOINT_STATES}


@dataclass(frozen=True)
class RobotFrame:
    """What the robot saw and felt at one instant.

    Attributes:
        stamps_ns: of each channel's message, exact.
        stamp_s: of the static image, in seconds.
        rgb_static, rgb_gripper: (rows, columns, 3) uint8, of the sizes that the cameras send.
        joints_rad: (7,) arm joints.
        opening_m: of the gripper.
    """

    stamps_ns: Mapping[str, int]
    stamp_s: float
    rgb_static: np.ndarray
    rgb_gripper: np.ndarray
    joints_rad: np.ndarray
    opening_m: float

    @property
    def stamp_ns(self) -> int:
        """Of the static image: the one that the answer carries."""
        return self.stamps_ns[STATIC]

    def proprioception(self, arm: ArmParameters, gripper_action: float) -> np.ndarray:
        """CALVIN's robot_obs (15,) float32: pose by forward kinematics, opening, joints, last gripper action."""
        return proprioception(arm, self.joints_rad, self.opening_m, gripper_action)


class FrameParts:
    """Turns single messages into the values of a frame's channels, and these into a frame.

    Args:
        arm: whose joints are looked for.
        fits: of the cameras by channel, from the sizes that they send to the policy's; without one, any size is taken.
    """

    def __init__(self, arm: ArmParameters, fits: Mapping[str, CameraFit] | None = None) -> None:
        self._arm = arm
        self._fits = fits or {}

    def value(self, channel: str, message: Any) -> tuple[Time, np.ndarray]:
        """Stamp and content of a message: an image (rows, columns, 3) uint8, or positions of seven joints and fingers.

        Raises:
            ConfigError: if it can't be used, with the reason.
        """
        if channel == JOINTS:
            names = (*self._arm.joint_names, *self._arm.finger_joint_names)
            return message.header.stamp, joint_positions(message, names)
        image = image_to_rgb(message)
        if channel in self._fits:
            image = self._fits[channel].checked(image)
        return message.header.stamp, image

    def frame(self, parts: Mapping[str, tuple[Time, np.ndarray]]) -> RobotFrame:
        """The frame of one value of each channel."""
        joints_rad, opening_m = split_joints(self._arm, parts[JOINTS][1])
        return RobotFrame(
            stamps_ns={channel: stamp_to_ns(stamp) for channel, (stamp, _) in parts.items()},
            stamp_s=stamp_to_s(parts[STATIC][0]),
            rgb_static=parts[STATIC][1],
            rgb_gripper=parts[GRIPPER][1],
            joints_rad=joints_rad,
            opening_m=opening_m,
        )

    def observation(self, frame: RobotFrame, gripper_action: float, instruction: str) -> Observation:
        """What the policy is shown: the images in its own sizes."""
        felt = frame.proprioception(self._arm, gripper_action)
        views = self._fits[STATIC](frame.rgb_static), self._fits[GRIPPER](frame.rgb_gripper)
        return Observation(*views, felt, instruction, frame.stamp_s)


def split_joints(arm: ArmParameters, positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Arm joints (7,) in rad and the gripper's opening in m, of the positions that `FrameParts.value` gives."""
    count = len(arm.joint_names)
    return positions[:count], float(positions[count:].sum())


def proprioception(arm: ArmParameters, joints_rad: np.ndarray, opening_m: float, gripper_action: float) -> np.ndarray:
    """CALVIN's robot_obs (15,) float32 from joint angles (7,), the gripper's opening and its last action (+1 or -1)."""
    position, euler = arm.geometry.tcp_pose(joints_rad)
    return np.array([*position, *euler, opening_m, *joints_rad, gripper_action], np.float32)
