"""Declares node parameters with type, range and description; a wrong value becomes a ConfigError that names it.

Those that the functions declare are read when the node is made and read-only afterwards; those of `LiveParameters` may
be changed while the node runs, by `ros2 param set` or the service `set_parameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException

from deer_policies.errors import ConfigError, DeerError
from deer_ros.control.arm import FINGER_COUNT, ArmParameters
from deer_ros.control.kinematics import JOINT_COUNT, ArmGeometry

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter

T = TypeVar("T")


def number(
    node: Node, name: str, default: float, low: float, high: float, description: str, *, read_only: bool = True
) -> float:
    """A floating-point parameter in [low, high]; units are in the name."""
    descriptor = ParameterDescriptor(
        description=description,
        read_only=read_only,
        floating_point_range=[FloatingPointRange(from_value=float(low), to_value=float(high))],
    )
    return float(
        _declare(node, name, float(default), descriptor, f"a number in {low:g}..{high:g}, written with a point")
    )


def integer(
    node: Node, name: str, default: int, low: int, high: int, description: str, *, read_only: bool = True
) -> int:
    """A whole number in [low, high]."""
    descriptor = ParameterDescriptor(
        description=description, read_only=read_only, integer_range=[IntegerRange(from_value=low, to_value=high)]
    )
    return int(_declare(node, name, default, descriptor, f"a whole number in {low}..{high}"))


def flag(node: Node, name: str, default: bool, description: str, *, read_only: bool = True) -> bool:
    """True or false."""
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    return bool(_declare(node, name, default, descriptor, "true or false"))


def text(
    node: Node, name: str, default: str, description: str, choices: tuple[str, ...] = (), *, read_only: bool = True
) -> str:
    """A text, one of `choices` if there are any."""
    allowed = _one_of(choices)
    descriptor = ParameterDescriptor(
        description=description, read_only=read_only, additional_constraints=allowed if choices else ""
    )
    value = str(_declare(node, name, default, descriptor, allowed))
    _check_choice(node, name, value, choices)
    return value


def texts(node: Node, name: str, default: tuple[str, ...], size: int, description: str) -> tuple[str, ...]:
    """A list of `size` texts."""
    return tuple(_sized(node, name, list(default), size, description, "texts", True))


def names(node: Node, name: str, default: tuple[str, ...], description: str) -> tuple[str, ...]:
    """A list of texts, as many as there are."""
    descriptor = ParameterDescriptor(description=description, read_only=True, additional_constraints="a list of names")
    return tuple(str(value) for value in _declare(node, name, list(default), descriptor, "a list of names"))


def numbers(
    node: Node, name: str, default: tuple[float, ...], description: str, *, read_only: bool = True
) -> tuple[float, ...]:
    """A list of as many finite floating-point values as the default has."""
    start = [float(value) for value in default]
    values = _sized(node, name, start, len(default), description, "numbers", read_only)
    _check_finite(node, name, values)
    return tuple(float(value) for value in values)


def size(node: Node, name: str, description: str) -> tuple[int, int]:
    """Rows and columns of a camera's images; the default (0, 0) is the size that the policy takes."""
    wanted = "2 whole numbers in 0..65535"
    text = f"{description}; 0 0: the policy's own size, others are cropped to its shape and scaled down"
    descriptor = ParameterDescriptor(description=text, read_only=True, additional_constraints=wanted)
    values = list(_declare(node, name, [0, 0], descriptor, f"a list of {wanted}"))
    _check_size(node, name, values, 2)
    rows, columns = values
    if not (0 <= rows <= 65535 and 0 <= columns <= 65535):
        raise ConfigError(f"parameter {name} of node {node.get_name()} is {[rows, columns]}; it must be {wanted}")
    return rows, columns


class LiveParameters:
    """Parameters that may be changed while the node runs, taken over together as one checked value.

    Declare them, then call `build` once:

        live = LiveParameters(node)
        live.number("camera_latency_s", 0.0, 0.0, 5.0, "how late images are sent")
        live.flag("camera_frozen", False, "whether ...")
        self._settings = live.build(lambda values: Settings(**values), self._take)

    From then on a change is checked for type, range and choices, and `make` builds the value that it would lead to out
    of all of them; what it raises (DeerError) is the reason with which the change is refused, and nothing changes.
    After a change that is accepted, `take` gets the new value, on the executor's thread.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._values: dict[str, Any] = {}
        self._checks: dict[str, Callable[[Any], Any]] = {}
        self._pending: tuple[dict[str, Any], Any] | None = None

    def number(self, name: str, default: float, low: float, high: float, description: str) -> None:
        """A floating-point parameter in [low, high]; units are in the name."""
        self._values[name] = number(self._node, name, default, low, high, description, read_only=False)

    def integer(self, name: str, default: int, low: int, high: int, description: str) -> None:
        """A whole number in [low, high]."""
        self._values[name] = integer(self._node, name, default, low, high, description, read_only=False)

    def flag(self, name: str, default: bool, description: str) -> None:
        """True or false."""
        self._values[name] = flag(self._node, name, default, description, read_only=False)

    def text(self, name: str, default: str, description: str, choices: tuple[str, ...] = ()) -> None:
        """A text, one of `choices` if there are any."""
        self._values[name] = text(self._node, name, default, description, choices, read_only=False)
        self._checks[name] = lambda value: _check_choice(self._node, name, value, choices)

    def numbers(self, name: str, default: tuple[float, ...], description: str) -> None:
        """A list of as many finite floating-point values as the default has."""

        def check(value: Any) -> tuple[float, ...]:
            _check_size(self._node, name, value, len(default))
            _check_finite(self._node, name, value)
            return tuple(float(item) for item in value)

        self._values[name] = numbers(self._node, name, default, description, read_only=False)
        self._checks[name] = check

    def build(self, make: Callable[[Mapping[str, Any]], T], take: Callable[[T], None]) -> T:
        """The value of the parameters as they are now; `take` gets the one of each later change.

        Raises:
            DeerError: what `make` raises.
        """

        def check(changes: list[Parameter[Any]]) -> SetParametersResult:
            self._pending = None
            if not any(change.name in self._values for change in changes):
                return SetParametersResult(successful=True)
            try:
                values = {**self._values, **self._checked(changes)}
                self._pending = values, make(values)
            except DeerError as error:
                return SetParametersResult(successful=False, reason=str(error))
            return SetParametersResult(successful=True)

        def accept(_: list[Parameter[Any]]) -> None:
            if self._pending is not None:
                (self._values, value), self._pending = self._pending, None
                take(value)

        first = make(dict(self._values))
        self._node.add_on_set_parameters_callback(check)
        self._node.add_post_set_parameters_callback(accept)
        return first

    def _checked(self, changes: list[Parameter[Any]]) -> dict[str, Any]:
        """The changed values by name, those of other parameters left out; rclpy has checked types and ranges."""
        found: dict[str, Any] = {}
        for change in changes:
            if change.name in self._values:
                checked = self._checks[change.name](change.value) if change.name in self._checks else None
                found[change.name] = change.value if checked is None else checked
        return found


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


def _sized(
    node: Node, name: str, default: list[Any], size: int, description: str, kind: str, read_only: bool
) -> list[Any]:
    constraint = f"{size} {kind}"
    descriptor = ParameterDescriptor(description=description, read_only=read_only, additional_constraints=constraint)
    values = list(_declare(node, name, default, descriptor, f"a list of {constraint}"))
    _check_size(node, name, values, size)
    return values


def _one_of(choices: tuple[str, ...]) -> str:
    return f"one of {', '.join(choices)}" if choices else "a text"


def _check_choice(node: Node, name: str, value: str, choices: tuple[str, ...]) -> None:
    if choices and value not in choices:
        raise ConfigError(f"parameter {name} of node {node.get_name()} is {value!r}; it must be {_one_of(choices)}")


def _check_size(node: Node, name: str, values: Any, size: int) -> None:
    if len(values) != size:
        raise ConfigError(f"parameter {name} of node {node.get_name()} has {len(values)} values; it must have {size}")


def _check_finite(node: Node, name: str, values: Any) -> None:
    if not np.isfinite(values).all():
        raise ConfigError(f"parameter {name} of node {node.get_name()} is {list(values)}; its values must be finite")


def _declare(node: Node, name: str, default: Any, descriptor: ParameterDescriptor, allowed: str) -> Any:
    try:
        return node.declare_parameter(name, default, descriptor).value
    except ParameterException as error:
        raise ConfigError(f"parameter {name} of node {node.get_name()} must be {allowed}: {error}") from error
