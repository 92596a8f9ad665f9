"""The arm: driven by relative Cartesian actions through inverse kinematics.

Control follows CALVIN: an action moves a target pose, one null space inverse kinematics call turns it into joint
setpoints, and position motors follow them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_sim.engine.scene import ArmSettings

_ARM = tuple(range(7))
_FINGER_SPEED = 1.0
CAMERA_LINK = "gripper_cam"
"""The link that the camera on the hand looks out of."""


class Robot:
    """The arm in one physics client. All poses are in the world frame."""

    def __init__(self, client: Any, body: int, settings: ArmSettings) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient` in which the arm is loaded as `body`."""
        self._client = client
        self._settings = settings
        self.body = body
        left, right = settings.finger_joints
        gear = client.createConstraint(body, left, body, right, client.JOINT_GEAR, (1, 0, 0), (0, 0, 0), (0, 0, 0))
        client.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=50)
        self.link_names = {-1: "panda_link0"}
        for index in range(client.getNumJoints(body)):
            self.link_names[index] = client.getJointInfo(body, index)[12].decode()
        self._rest = [*settings.initial_joints, settings.finger_travel_m, settings.finger_travel_m]
        self._lower, self._upper = np.array(settings.lower_limits), np.array(settings.upper_limits)
        self.reset(np.array(settings.initial_joints), 2 * settings.finger_travel_m, 1.0)

    def reset(self, joints: np.ndarray, width_m: float, gripper_action: float) -> None:
        """Puts the arm, at rest, at `joints` (7,) rad with the fingers `width_m` apart; its target pose is where it is.

        `gripper_action`, +1 or -1, is what the observation tells as the last one commanded.
        """
        client = self._client
        for index in _ARM:
            client.resetJointState(self.body, index, joints[index])
        self._drive_arm(joints)
        for index in self._settings.finger_joints:
            client.resetJointState(self.body, index, width_m / 2)
            self._drive_finger(index, width_m / 2, self._settings.close_force)
        self._target_position, self._target_euler = self._tool_pose()
        self._gripper_action = gripper_action

    def command(self, action: np.ndarray) -> None:
        """Moves the target pose by a relative action (7,) and drives the motors towards it."""
        self.drive_pose(action[:6])
        self.drive_fingers(2 * self._settings.finger_travel_m if action[6] > 0.0 else 0.0)

    def drive_pose(self, step: np.ndarray) -> None:
        """Moves the target pose by a step (6,) as in a relative action, and drives the arm's motors towards it."""
        client, settings = self._client, self._settings
        self._target_position = self._target_position + step[:3] * settings.position_step_m
        self._target_euler = self._target_euler + step[3:6] * settings.rotation_step_rad
        solution = client.calculateInverseKinematics(
            self.body,
            settings.tool_link,
            self._target_position.tolist(),
            client.getQuaternionFromEuler(self._target_euler.tolist()),
            lowerLimits=[-7.0] * 9,
            upperLimits=[7.0] * 9,
            jointRanges=[7.0] * 9,
            restPoses=self._rest,
        )
        self._drive_arm(np.clip(solution[:7], self._lower, self._upper))

    def drive_joints(self, joints: np.ndarray) -> None:
        """Drives the arm's motors to `joints` (7,) rad; the target pose becomes the tool's present one."""
        self._drive_arm(np.clip(joints, self._lower, self._upper))
        self._target_position, self._target_euler = self._tool_pose()

    def drive_fingers(self, opening_m: float) -> None:
        """Drives the fingers `opening_m` apart, within their travel; at half of it, an observation says closed."""
        settings = self._settings
        opening = opening_m > settings.finger_travel_m
        self._gripper_action = 1.0 if opening else -1.0
        for index in settings.finger_joints:
            self._drive_finger(
                index,
                float(np.clip(opening_m / 2, 0.0, settings.finger_travel_m)),
                settings.open_force if opening else settings.close_force,
            )

    def observation(self) -> np.ndarray:
        """CALVIN's robot_obs (15,): tcp xyz, tcp euler xyz, finger width, seven joints, last gripper action."""
        client = self._client
        position, orientation = client.getLinkState(self.body, self._settings.tool_link)[:2]
        states = client.getJointStates(self.body, [*_ARM, *self._settings.finger_joints])
        joints = [state[0] for state in states]
        return np.array(
            [
                *position,
                *client.getEulerFromQuaternion(orientation),
                joints[7] + joints[8],
                *joints[:7],
                self._gripper_action,
            ]
        )

    def _tool_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Place (3,) and euler angles (3,) of the tool."""
        position, orientation = self._client.getLinkState(self.body, self._settings.tool_link)[:2]
        return np.array(position), np.array(self._client.getEulerFromQuaternion(orientation))

    def _drive_arm(self, joints: np.ndarray) -> None:
        """Sets the arm's position motors to `joints` (7,) rad."""
        for index in _ARM:
            self._client.setJointMotorControl2(
                self.body,
                index,
                self._client.POSITION_CONTROL,
                targetPosition=joints[index],
                force=self._settings.joint_force,
                maxVelocity=self._settings.joint_speed,
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
