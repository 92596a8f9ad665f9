"""Follows joint trajectories as a joint_trajectory_controller does: the newest replaces the one before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deer_policies.errors import ConfigError
from deer_ros.control.kinematics import JOINT_COUNT


@dataclass(frozen=True)
class JointTrajectory:
    """Points that the joints pass through.

    Attributes:
        times_s: (points,) from the start, 0 or more and rising.
        positions_rad: (points, joints).
        velocities_rad_s: (points, joints), or None: straight lines between the points instead of cubic splines.
    """

    times_s: np.ndarray
    positions_rad: np.ndarray
    velocities_rad_s: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.times_s), JOINT_COUNT)
        if not len(self.times_s):
            raise ConfigError("the trajectory has no points; it must have at least one")
        if self.times_s[0] < 0.0 or (np.diff(self.times_s) <= 0.0).any():
            raise ConfigError(
                f"time_from_start of the trajectory's points is {np.asarray(self.times_s).tolist()} s; "
                "it must be 0 or more and rise from point to point"
            )
        for name in ("positions_rad", "velocities_rad_s"):
            values = getattr(self, name)
            if values is not None and (values.shape != shape or not np.isfinite(values).all()):
                raise ConfigError(f"{name} of the trajectory must be {shape} finite values, and are {values.tolist()}")


class TrajectoryFollower:
    """Where the joints are to be. All times are those of one clock, in s."""

    def __init__(self) -> None:
        self._times = np.zeros(0)
        self._positions = np.zeros((0, JOINT_COUNT))
        self._velocities: np.ndarray | None = None

    def take(self, trajectory: JointTrajectory, start_s: float, now_s: float, present_rad: np.ndarray) -> None:
        """Begins a trajectory; to its first point it goes from where the one before is now.

        Args:
            trajectory: the new one.
            start_s: what its times count from.
            now_s: the present.
            present_rad: (7,) where the joints are, for the case that there is none before.

        Raises:
            ConfigError: if it has ended already; the one before goes on.
        """
        times = start_s + np.asarray(trajectory.times_s, dtype=np.float64)
        if times[-1] < now_s:
            raise ConfigError(
                f"the trajectory ended {now_s - times[-1]:.3f} s ago and is not followed; send it earlier, or with "
                "stamp 0 to start it when it comes in"
            )
        position, velocity = self._sample(now_s) or (np.asarray(present_rad, dtype=np.float64), np.zeros(JOINT_COUNT))
        positions, velocities = trajectory.positions_rad, trajectory.velocities_rad_s
        if times[0] > now_s:
            times = np.append(now_s, times)
            positions = np.vstack((position, positions))
            velocities = None if velocities is None else np.vstack((velocity, velocities))
        self._times, self._positions, self._velocities = times, positions, velocities

    def clear(self) -> None:
        """Forgets the trajectory."""
        self._times = np.zeros(0)

    def sample(self, now_s: float) -> np.ndarray | None:
        """Positions (7,) at a time, those of the last point after the end; None if there is no trajectory."""
        found = self._sample(now_s)
        return None if found is None else found[0]

    def _sample(self, now_s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Positions and velocities (7,)."""
        times, positions = self._times, self._positions
        if not len(times):
            return None
        if now_s <= times[0] or now_s >= times[-1]:
            return positions[0 if now_s <= times[0] else -1], np.zeros(JOINT_COUNT)
        after = int(np.searchsorted(times, now_s, side="right"))
        span = times[after] - times[after - 1]
        part = (now_s - times[after - 1]) / span
        step = positions[after] - positions[after - 1]
        if self._velocities is None:
            return positions[after - 1] + part * step, step / span
        return _hermite(part, span, positions[after - 1], step, *self._velocities[after - 1 : after + 1])


def _hermite(
    part: float, span_s: float, start: np.ndarray, step: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cubic with the given ends and end velocities, and its velocity, at `part` in 0..1 of its span."""
    square = 3 * step - span_s * (2 * first + last)
    cube = span_s * (first + last) - 2 * step
    position = start + part * (span_s * first + part * (square + part * cube))
    return position, first + part * (2 * square + 3 * part * cube) / span_s
