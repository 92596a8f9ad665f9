"""The arm: a Franka Panda with long fingers, driven by relative Cartesian actions through inverse kinematics.

The links are those that pybullet ships (pybullet_data, Apache-2.0); longer fingers, the camera's mount and the tool
centre point are added when the environment is built. Control follows CALVIN: an action moves a target pose, one null
space inverse kinematics call turns it into joint setpoints, and position motors follow them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.interfaces import MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD
from deer_sim.playtable import meshes

BASE_POSITION = (-0.34, -0.46, 0.24)
INITIAL_JOINTS = (-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866)
"""Arm joints in rad after a reset without a state: the tool points down above the table's middle."""
FINGER_MAX_M = 0.04
"""Travel of each finger."""
LOWER_LIMITS = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
UPPER_LIMITS = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
_ARM = tuple(range(7))
_LEFT, _RIGHT = 9, 11
CAMERA_LINK, TCP_LINK = 14, 15
_JOINT_FORCE, _JOINT_SPEED = 200.0, 2.0
_CLOSE_FORCE, _OPEN_FORCE, _FINGER_SPEED = 200.0, 2.0, 1.0

_ADDED = """
<link name="finger_left_tip">
  <inertial><mass value="0.0001"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>
  <contact><lateral_friction value="1"/><spinning_friction value="0.001"/></contact>
  <visual><geometry><mesh filename="PAD"/></geometry>
    <material name="rubber"><color rgba="0.2 0.2 0.22 1"/></material></visual>
  <collision><geometry><mesh filename="PAD"/></geometry></collision>
</link>
<joint name="joint_finger_tip_left" type="fixed">
  <origin xyz="0 0 0"/><parent link="panda_leftfinger"/><child link="finger_left_tip"/>
</joint>
<link name="finger_right_tip">
  <inertial><mass value="0.0001"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>
  <contact><lateral_friction value="1"/><spinning_friction value="0.001"/></contact>
  <visual><geometry><mesh filename="PAD"/></geometry>
    <material name="rubber"><color rgba="0.2 0.2 0.22 1"/></material></visual>
  <collision><geometry><mesh filename="PAD"/></geometry></collision>
</link>
<joint name="joint_finger_tip_right" type="fixed">
  <origin xyz="0 0 0" rpy="0 0 3.14159265359"/><parent link="panda_rightfinger"/><child link="finger_right_tip"/>
</joint>
<link name="gripper_cam">
  <inertial><mass value="0.2"/><inertia ixx="0.1" ixy="0" ixz="0" iyy="0.1" iyz="0" izz="0.1"/></inertial>
</link>
<joint name="camera_joint" type="fixed">
  <origin xyz="-0.1 0 0" rpy="1.3 0 -1.57"/><parent link="panda_hand"/><child link="gripper_cam"/>
</joint>
<link name="tcp">
  <inertial><mass value="0.00001"/><inertia ixx="0.1" ixy="0" ixz="0" iyy="0.1" iyz="0" izz="0.1"/></inertial>
</link>
<joint name="tcp_joint" type="fixed">
  <origin xyz="0 0 0.14"/><parent link="panda_hand"/><child link="tcp"/>
</joint>
"""


_FINGER_PROFILE = (
    (0.0062, 0.0003),
    (0.0268, 0.0003),
    (0.0215, 0.0340),
    (0.0068, 0.0964),
    (0.0039, 0.0964),
    (0.0039, 0.0770),
)
"""Corners (y, z) of a finger's side view in its link's frame; it is 21 mm wide."""
_PAD_PROFILE = (
    (0.0550, -0.0095),
    (0.0560, -0.0105),
    (0.0930, -0.0105),
    (0.0960, -0.0075),
    (0.0960, 0.0075),
    (0.0930, 0.0105),
    (0.0560, 0.0105),
    (0.0550, 0.0095),
)
"""Corners (z, x) of the rubber pad's front view; it lies on the inner side of the finger."""
_DRAWN_DIRECTIONS = 80
"""The drawn arm keeps the corners that are outermost in so many directions; TinyRenderer's time grows with them."""


def write_urdf(folder: Path) -> Path:
    """Writes the arm's URDF and its meshes into `folder`, and returns the URDF's path.

    Links touch with the convex hulls of pybullet's collision meshes, which is what Bullet would make of them, and are
    drawn as coarser ones.
    """
    import pybullet_data

    root = Path(pybullet_data.getDataPath()) / "franka_panda"
    finger = meshes.write_obj(folder / "finger.obj", meshes.prism(_FINGER_PROFILE, (-0.0105, 0.0105)))
    pad = meshes.write_obj(folder / "pad.obj", meshes.prism(_PAD_PROFILE, (0.0009, 0.005), axis=1))
    text = (root / "panda.urdf").read_text()
    text = text.replace("</robot>", _ADDED.replace("PAD", pad.as_posix()) + "</robot>")
    text = re.sub(r"package://meshes/(visual|collision)/finger\.obj", finger.as_posix(), text)
    for name in sorted(set(re.findall(r"package://meshes/\w+/(\w+)\.obj", text))):
        points = meshes.read_vertices(root / "meshes" / "collision" / f"{name}.obj")
        touching = meshes.write_obj(folder / f"{name}.obj", meshes.hull(points))
        drawn = meshes.write_obj(folder / f"{name}_drawn.obj", meshes.hull(meshes.outermost(points, _DRAWN_DIRECTIONS)))
        pattern = rf"(<{{}}>(?:(?!</{{}}>).)*?)package://meshes/\w+/{name}\.obj"
        for kind, file in (("visual", drawn), ("collision", touching)):
            text = re.sub(pattern.format(kind, kind), rf"\g<1>{file.as_posix()}", text, flags=re.DOTALL)
    path = folder / "panda.urdf"
    path.write_text(text)
    return path


class Robot:
    """The arm in one physics client. All poses are in the world frame."""

    def __init__(self, client: Any, path: Path) -> None:
        """Loads the arm; `client` is a `pybullet_utils.bullet_client.BulletClient`."""
        self._client = client
        self.body: int = client.loadURDF(str(path), BASE_POSITION, (0.0, 0.0, 0.0, 1.0), useFixedBase=True)
        gear = client.createConstraint(
            self.body, _LEFT, self.body, _RIGHT, client.JOINT_GEAR, (1, 0, 0), (0, 0, 0), (0, 0, 0)
        )
        client.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=50)
        self.link_names = {-1: "panda_link0"}
        for index in range(client.getNumJoints(self.body)):
            self.link_names[index] = client.getJointInfo(self.body, index)[12].decode()
        self._target_position = np.zeros(3)
        self._target_euler = np.zeros(3)
        self._gripper_action = 1.0

    def reset(self, joints: np.ndarray, width_m: float, gripper_action: float) -> None:
        """Puts the arm, at rest, at `joints` (7,) rad with the fingers `width_m` apart; its target pose is where it is.

        `gripper_action`, +1 or -1, is what the observation tells as the last one commanded.
        """
        client = self._client
        for index in _ARM:
            client.resetJointState(self.body, index, joints[index])
        self._drive_arm(joints)
        for index in (_LEFT, _RIGHT):
            client.resetJointState(self.body, index, width_m / 2)
            self._drive_finger(index, width_m / 2, _CLOSE_FORCE)
        position, orientation = client.getLinkState(self.body, TCP_LINK)[:2]
        self._target_position = np.array(position)
        self._target_euler = np.array(client.getEulerFromQuaternion(orientation))
        self._gripper_action = gripper_action

    def command(self, action: np.ndarray) -> None:
        """Moves the target pose by a relative action (7,), clipped to [-1, 1], and drives the motors towards it."""
        client = self._client
        limited = np.clip(action, -1.0, 1.0)
        self._target_position = self._target_position + limited[:3] * MAX_POSITION_STEP_M
        self._target_euler = self._target_euler + limited[3:6] * MAX_ROTATION_STEP_RAD
        self._gripper_action = 1.0 if action[6] > 0.0 else -1.0
        solution = client.calculateInverseKinematics(
            self.body,
            TCP_LINK,
            self._target_position.tolist(),
            client.getQuaternionFromEuler(self._target_euler.tolist()),
            lowerLimits=[-7.0] * 9,
            upperLimits=[7.0] * 9,
            jointRanges=[7.0] * 9,
            restPoses=[*INITIAL_JOINTS, FINGER_MAX_M, FINGER_MAX_M],
        )
        self._drive_arm(np.clip(solution[:7], LOWER_LIMITS, UPPER_LIMITS))
        opening = self._gripper_action > 0.0
        for index in (_LEFT, _RIGHT):
            self._drive_finger(index, FINGER_MAX_M if opening else 0.0, _OPEN_FORCE if opening else _CLOSE_FORCE)

    def observation(self) -> np.ndarray:
        """CALVIN's robot_obs (15,): tcp xyz, tcp euler xyz, finger width, seven joints, last gripper action."""
        client = self._client
        position, orientation = client.getLinkState(self.body, TCP_LINK)[:2]
        joints = [state[0] for state in client.getJointStates(self.body, [*_ARM, _LEFT, _RIGHT])]
        return np.array(
            [
                *position,
                *client.getEulerFromQuaternion(orientation),
                joints[7] + joints[8],
                *joints[:7],
                self._gripper_action,
            ]
        )

    def _drive_arm(self, joints: np.ndarray) -> None:
        """Sets the arm's position motors to `joints` (7,) rad."""
        for index in _ARM:
            self._client.setJointMotorControl2(
                self.body,
                index,
                self._client.POSITION_CONTROL,
                targetPosition=joints[index],
                force=_JOINT_FORCE,
                maxVelocity=_JOINT_SPEED,
            )

    def _drive_finger(self, index: int, position_m: float, force_n: float) -> None:
        """Sets one finger's position motor."""
        self._client.setJointMotorControl2(
            self.body,
            index,
            self._client.POSITION_CONTROL,
            targetPosition=position_m,
            force=force_n,
            maxVelocity=_FINGER_SPEED,
        )
