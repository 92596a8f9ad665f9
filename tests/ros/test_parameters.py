"""Parameters that may be changed while a node runs: what is wrong is refused with the reason, and nothing changes."""

from dataclasses import dataclass

import pytest
import rclpy
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from deer_policies.errors import ConfigError
from deer_ros.bringup import free_domain_id
from deer_ros.parameters import LiveParameters, flag, number


@dataclass(frozen=True)
class Settings:
    """Two ends of a range, and the rest."""

    low_m: float
    high_m: float
    frozen: bool
    encoding: str
    corner_m: tuple[float, ...]
    depth: int

    def __post_init__(self):
        if self.low_m > self.high_m:
            raise ConfigError(f"low_m is {self.low_m}; it must not be above high_m, {self.high_m}")


class Live:
    """A node with live parameters and one that is read-only; what was taken over is in `taken`."""

    def __init__(self, *settings):
        arguments = [item for setting in settings for item in ("-p", setting)]
        self.context = rclpy.Context()
        rclpy.init(args=["--ros-args", *arguments], context=self.context, domain_id=free_domain_id())
        self.taken = []
        try:
            self.declare()
        except ConfigError:
            self.context.try_shutdown()
            raise

    def declare(self):
        self.node = rclpy.create_node("live", context=self.context)
        number(self.node, "rate_hz", 30.0, 1.0, 100.0, "fixed")
        flag(self.node, "loud", False, "fixed")
        live = LiveParameters(self.node)
        live.number("low_m", 0.0, -1.0, 1.0, "lower end")
        live.number("high_m", 1.0, -1.0, 1.0, "upper end")
        live.flag("frozen", False, "whether it is frozen")
        live.text("encoding", "rgb8", "encoding", ("rgb8", "mono8"))
        live.numbers("corner_m", (0.0, 0.0), "corner")
        live.integer("depth", 1, 1, 5, "depth")
        self.first = live.build(lambda values: Settings(**values), self.taken.append)

    def set(self, **values):
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        return self.node.set_parameters_atomically(parameters)

    def close(self):
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def live():
    made = Live("low_m:=0.25")
    yield made
    made.close()


def test_a_change_is_taken_over_with_all_the_others(live):
    assert live.first == Settings(0.25, 1.0, False, "rgb8", (0.0, 0.0), 1)
    assert live.set(frozen=True).successful
    assert live.set(low_m=0.6, high_m=0.9, encoding="mono8", corner_m=[1.0, 2.0], depth=5).successful
    assert live.taken[0] == Settings(0.25, 1.0, True, "rgb8", (0.0, 0.0), 1)
    assert live.taken[1] == Settings(0.6, 0.9, True, "mono8", (1.0, 2.0), 5)
    assert live.node.get_parameter("low_m").value == 0.6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"low_m": 2.0}, "low_m out of range"),
        ({"low_m": float("nan")}, "low_m out of range"),
        ({"low_m": 1}, "Wrong parameter type"),
        ({"depth": 6}, "depth out of range"),
        ({"encoding": "jpeg"}, "'jpeg'; it must be one of rgb8, mono8"),
        ({"corner_m": [1.0]}, "has 1 values; it must have 2"),
        ({"corner_m": [1.0, float("inf")]}, "must be finite"),
        ({"low_m": 0.8, "high_m": 0.7}, "must not be above high_m, 0.7"),
        ({"frozen": True, "encoding": "jpeg"}, "must be one of"),
        ({"rate_hz": 20.0}, "read-only"),
    ],
)
def test_a_wrong_change_is_refused_with_the_reason_and_changes_nothing(live, change, reason):
    result = live.set(**change)
    assert not result.successful
    assert reason in result.reason
    assert live.taken == []
    assert live.set(depth=2).successful
    assert live.taken == [Settings(0.25, 1.0, False, "rgb8", (0.0, 0.0), 2)]
    assert live.node.get_parameter("frozen").value is False


def test_what_does_not_fit_together_at_the_start_is_told():
    with pytest.raises(ConfigError, match="must not be above high_m"):
        Live("low_m:=0.5", "high_m:=0.4")


def test_each_is_described_with_its_range(live):
    low, encoding, rate = live.node.describe_parameters(["low_m", "encoding", "rate_hz"])
    assert (low.type, low.read_only, low.description) == (ParameterType.PARAMETER_DOUBLE, False, "lower end")
    assert (low.floating_point_range[0].from_value, low.floating_point_range[0].to_value) == (-1.0, 1.0)
    assert encoding.additional_constraints == "one of rgb8, mono8"
    assert rate.read_only
