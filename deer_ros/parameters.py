"""Declares node parameters with type, range and description; a wrong value becomes a ConfigError that names it.

All of them are read when the node is made and read-only afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException

from deer_policies.errors import ConfigError
from deer_ros.control.arm import FINGER_COUNT, ArmParameters
from deer_ros.control.kinematics import JOINT_COUNT, ArmGeometry

if TYPE_CHECKING:
    from rclpy.node import Node


def number(node: Node, name: str, default: float, low: float, high: float, description: str) -> float:
    """A floating-point parameter in [low, high]; units are in the name."""
    descriptor = ParameterDescriptor(
        description=description,
        read_only=True,
        floating_point_range=[FloatingPointRange(from_value=float(low), to_value=float(high))],
    )
    return float(
        _declare(node, name, float(default), descriptor, f"a number in {low:g}..{high:g}, written with a point")
    )


def integer(node: Node, name: str, default: int, low: int, high: int, description: str) -> int:
    """A whole number in [low, high]."""
    descriptor = ParameterDescriptor(
        description=description, read_only=True, integer_range=[IntegerRange(from_value=low, to_value=high)]
    )
    return int(_declare(node, name, default, descriptor, f"a whole number in {low}..{high}"))


def flag(node: Node, name: str, default: bool, description: str) -> bool:
    """True or false."""
    return bool(
        _declare(node, name, default, ParameterDescriptor(description=description, read_only=True), "true or false")
    )


def text(node: Node, name: str, default: str, description: str, choices: tuple[str, ...] = ()) -> str:
    """A text, one of `choices` if there are any."""
    allowed = f"one of {', '.join(choices)}" if choices else "a text"
    descriptor = ParameterDescriptor(
        description=description, read_only=True, additional_constraints=allowed if choices else ""
    )
    value = str(_declare(node, name, default, descriptor, allowed))
    if choices and value not in choices:
        raise ConfigError(f"parameter {name} of node {node.get_name()} is {value!r}; it must be {allowed}")
    return value


def texts(node: Node, name: str, default: tuple[str, ...], size: int, description: str) -> tuple[str, ...]:
    """A list of `size` texts."""
    return tuple(_sized(node, name, list(default), size, description, "texts"))


def numbers(node: Node, name: str, default: tuple[float, ...], description: str) -> tuple[float, ...]:
    """A list of as many floating-point values as the default has."""
    values = _sized(node, name, [float(value) for value in default], len(default), description, "numbers")
    return tuple(float(value) for value in values)


def arm(node: Node) -> ArmParameters:
    """The parameters of the arm that policy, safety and simulator share."""
    return ArmParameters(
        texts(
            node,
            "joint_names",
            ArmParameters.joint_names,
            JOINT_COUNT,
            "arm joints in joint_states, base to wrist",
        ),
        texts(
            node,
            "finger_joint_names",
            ArmParameters.finger_joint_names,
            FINGER_COUNT,
            "finger joints in joint_states; the gripper's opening is their sum",
        ),
        ArmGeometry(
            numbers(node, "base_position_m", ArmGeometry.base_position_m, "where the arm's base is, x y z"),  # type: ignore[arg-type]
            number(node, "tcp_offset_m", ArmGeometry.tcp_offset_m, 0.0, 0.5, "from the hand to the tool centre point"),
        ),
        text(node, "base_frame", ArmParameters.base_frame, "frame of the arm's base, for the headers of commands"),
    )


def _sized(node: Node, name: str, default: list[Any], size: int, description: str, kind: str) -> list[Any]:
    descriptor = ParameterDescriptor(description=description, read_only=True, additional_constraints=f"{size} {kind}")
    values = list(_declare(node, name, default, descriptor, f"a list of {size} {kind}"))
    if len(values) != size:
        raise ConfigError(f"parameter {name} of node {node.get_name()} has {len(values)} values; it must have {size}")
    return values


def _declare(node: Node, name: str, default: Any, descriptor: ParameterDescriptor, allowed: str) -> Any:
    try:
        return node.declare_parameter(name, default, descriptor).value
    except ParameterException as error:
        raise ConfigError(f"parameter {name} of node {node.get_name()} must be {allowed}: {error}") from error
