"""The policy node's parameters, declared with units and ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deer_policies.deer.precision import PRECISIONS
from deer_policies.interfaces import Budget, Policy
from deer_ros import parameters
from deer_ros.control.arm import ArmParameters
from deer_ros.control.goal import GoalLimits
from deer_ros.nodes.frame_input import FrameSettings
from deer_ros.parameters import LiveParameters

if TYPE_CHECKING:
    from rclpy.node import Node

BUDGET = {
    "average_llm_gmac": "first budget, language model on average, 1e9 MAC a step; 0: no limit",
    "peak_llm_gmac": "first budget, language model in any one step, 1e9 MAC; 0: no limit",
    "peak_memory_gib": "first budget, weights and activations, GiB; 0: no limit",
    "latency_ms": "first budget, wall time of any one step, ms; 0: no limit",
}
"""Parameters that are the limits of the first `Budget`; if all are 0, it is the checkpoint's."""


@dataclass(frozen=True)
class PolicyParameters:
    """Those that are read once, when the node is made.

    Attributes:
        policy: name of a bundled one, or path of a checkpoint.
        device: where it runs.
        threads: of the model on a CPU.
        precision: how its weights are held.
        budget: the first one; None is the checkpoint's.
        control_rate_hz: of the frames.
        frames: how they are put together.
        arm: which arm it is.
    """

    policy: str
    device: str
    threads: int
    precision: str
    budget: Budget | None
    control_rate_hz: float
    frames: FrameSettings
    arm: ArmParameters


@dataclass(frozen=True)
class PolicyLimits:
    """Those that may be changed while the node runs.

    Attributes:
        goal: when a goal ends by itself.
        max_image_age_s: older frames are not acted on.
        frozen_view_m: an unchanged picture counts as frozen once the tool has moved further than this.
        model_timeout_s: how long the model may be at one step.
        refuse_unknown: whether instructions outside the policy's skills are refused.
        reuse_views_below: mean pixel change below which a view is not encoded anew.
    """

    goal: GoalLimits
    max_image_age_s: float
    frozen_view_m: float
    model_timeout_s: float
    refuse_unknown: bool
    reuse_views_below: float


def declare(node: Node) -> PolicyParameters:
    """Raises ConfigError for what can't work."""
    number, integer, text = parameters.number, parameters.integer, parameters.text
    limits = {name: number(node, name, 0.0, 0.0, 1e6, meaning) or None for name, meaning in BUDGET.items()}
    return PolicyParameters(
        policy=text(node, "policy", "deer-nano", "name of a bundled policy, or path of a checkpoint"),
        device=text(node, "device", "cpu", "where it runs: cpu, cuda, cuda:0, ..."),
        threads=integer(node, "threads", 2, 1, 256, "threads of the model on a CPU"),
        precision=text(node, "precision", "float32", "how the policy's weights are held", tuple(PRECISIONS)),
        budget=Budget(**limits) if any(limits.values()) else None,
        control_rate_hz=number(
            node, "control_rate_hz", 30.0, 1.0, 1000.0, "rate of the frames; the policy's must agree"
        ),
        frames=FrameSettings(
            number(node, "image_slop_s", 0.02, 0.0, 1.0, "stamps of one frame may lie this far apart"),
            parameters.flag(node, "reliable_images", False, "ask for lost images again; the cameras must offer it"),
            parameters.size(node, "camera_static_size", "rows and columns of the static camera's images"),
            parameters.size(node, "camera_gripper_size", "rows and columns of the gripper camera's images"),
        ),
        arm=parameters.arm(node),
    )


def declare_limits(node: Node, take: Callable[[PolicyLimits], None]) -> PolicyLimits:
    """The limits as they are now; `take` gets those of each later change. Raises ConfigError for what can't work."""
    live = LiveParameters(node)
    number = live.number
    number("reuse_views_below", 0.0, 0.0, 255.0, "mean pixel change below which a view is not encoded anew")
    number("max_image_age_s", 0.2, 0.01, 10.0, "older frames are not acted on")
    number("frozen_view_m", 0.03, 0.005, 1.0, "a camera that shows the same pixels after so much tool motion is frozen")
    number("model_timeout_s", 1.0, 0.05, 60.0, "a model that takes longer for one step has failed: the goal ends")
    live.integer("default_max_steps", 360, 1, 1_000_000, "control steps of a goal that names none")
    number("frame_timeout_s", 2.0, 0.1, 600.0, "a goal fails after this long without a usable frame")
    live.flag("refuse_unknown", True, "refuse instructions that the policy's recogniser doesn't take for its skills")
    return live.build(_limits, take)


def reuse_views(below: float, policy: Policy) -> None:
    """Tells a policy from which change on it encodes a view anew; one that knows of no such thing always does."""
    from deer_policies.deer.view_reuse import ViewReuse

    choose = getattr(policy, "set_view_reuse", None)
    if choose is not None:
        choose(ViewReuse(below))


def _limits(values: Mapping[str, Any]) -> PolicyLimits:
    others = dict(values)
    goal = GoalLimits(others.pop("default_max_steps"), others.pop("frame_timeout_s"))
    return PolicyLimits(goal=goal, **others)
