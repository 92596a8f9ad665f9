"""How commands reach the gripper: an opening on a topic, or one of the two gripper actions of control_msgs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from std_msgs.msg import Float64

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.nodes.safety_parameters import SafetyParameters
from deer_ros.quality import COMMANDS

if TYPE_CHECKING:
    from rclpy.node import Node


class GripperOutput(Protocol):
    """An interface of gripper controllers."""

    trouble: str
    """What is wrong with it, in words, or nothing."""

    def send(self, opening_m: float) -> None:
        """Asks for an opening; may be called with the same one again and again."""
        ...

    def close(self) -> None:
        """Gives back what it has of the node."""
        ...


def make_gripper_output(node: Node, settings: SafetyParameters) -> GripperOutput:
    """The one that the parameter `gripper_output` names. Raises ConfigError if control_msgs is needed and missing."""
    if settings.gripper_output == graph.FLOAT64:
        return TopicGripper(node)
    try:
        from control_msgs import action as interfaces
    except ImportError as error:
        raise ConfigError(
            f"gripper_output is {settings.gripper_output}, which needs the ROS 2 package control_msgs: "
            f"apt install ros-$ROS_DISTRO-control-msgs, or set gripper_output to {graph.FLOAT64}"
        ) from error
    if settings.gripper_output == graph.GRIPPER_COMMAND_ACTION:
        kind = interfaces.GripperCommand

        def goal(opening_m: float) -> Any:
            message = kind.Goal()
            message.command.position = opening_m * settings.gripper_scale
            message.command.max_effort = settings.gripper_effort_n
            return message
    else:
        kind = interfaces.ParallelGripperCommand
        finger = settings.arm.finger_joint_names[0]

        def goal(opening_m: float) -> Any:
            message = kind.Goal()
            message.command.name = [finger]
            message.command.position = [opening_m / 2 * settings.gripper_scale]
            message.command.effort = [settings.gripper_effort_n]
            return message

    return ActionGripper(node, kind, goal)


class TopicGripper:
    """std_msgs/Float64, opening in m, with every command."""

    def __init__(self, node: Node) -> None:
        self.trouble = ""
        self._node = node
        self._publisher = node.create_publisher(Float64, graph.GRIPPER_COMMAND, COMMANDS)

    def send(self, opening_m: float) -> None:
        """Publishes it."""
        self._publisher.publish(Float64(data=opening_m))

    def close(self) -> None:
        """Gives back the publisher."""
        self._node.destroy_publisher(self._publisher)


class ActionGripper:
    """A goal for each change of the opening; one that was refused, or that nobody was there to take, is sent again."""

    def __init__(self, node: Node, kind: Any, goal: Callable[[float], Any]) -> None:
        from rclpy.action import ActionClient

        self.trouble = ""
        self._node = node
        self._goal = goal
        self._client: Any = ActionClient(node, kind, graph.GRIPPER_ACTION)
        self._asked_m: float | None = None
        self._pending = False

    def send(self, opening_m: float) -> None:
        """Sends a goal unless it is the one that was sent last."""
        if opening_m == self._asked_m or self._pending:
            return
        if not self._client.server_is_ready():
            self.trouble = f"no gripper action server on {graph.GRIPPER_ACTION}; is the gripper's controller running?"
            return
        self._pending = True
        self._client.send_goal_async(self._goal(opening_m)).add_done_callback(
            lambda future: self._answered(opening_m, future)
        )

    def close(self) -> None:
        """Gives back the client."""
        self._client.destroy()

    def _answered(self, opening_m: float, future: Any) -> None:
        self._pending = False
        accepted = future.exception() is None and future.result().accepted
        self._asked_m = opening_m if accepted else None
        self.trouble = "" if accepted else f"the gripper's controller refused an opening of {opening_m:g} m"
