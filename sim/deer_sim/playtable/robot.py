"""The arm: a Franka Panda with long fingers, and how it is driven.

The links are those that pybullet ships (pybullet_data, Apache-2.0); longer fingers, the camera's mount and the tool
centre point are added when the environment is built.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from deer_policies.interfaces import MAX_POSITION_STEP_M, MAX_ROTATION_STEP_RAD
from deer_sim.engine.scene import ArmSettings
from deer_sim.playtable import meshes

BASE_POSITION = (-0.34, -0.46, 0.24)
INITIAL_JOINTS = (-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866)
"""Arm joints in rad after a reset without a state: the tool points down above the table's middle."""
FINGER_MAX_M = 0.04
"""Travel of each finger."""
LOWER_LIMITS = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
UPPER_LIMITS = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
TCP_LINK = 15
SETTINGS = ArmSettings(
    initial_joints=INITIAL_JOINTS,
    lower_limits=tuple(LOWER_LIMITS.tolist()),
    upper_limits=tuple(UPPER_LIMITS.tolist()),
    joint_force=200.0,
    joint_speed=2.0,
    finger_joints=(9, 11),
    finger_travel_m=FINGER_MAX_M,
    close_force=200.0,
    open_force=2.0,
    tool_link=TCP_LINK,
    position_step_m=MAX_POSITION_STEP_M,
    rotation_step_rad=MAX_ROTATION_STEP_RAD,
)

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
