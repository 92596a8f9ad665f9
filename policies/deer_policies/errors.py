"""The error family: every mistake that a user can make and mend ends in one of these."""

from __future__ import annotations

from collections.abc import Sequence


class DeerError(Exception):
    """A problem that the message explains: what is wrong, what is allowed, and the remedy."""


class ConfigError(DeerError, ValueError):
    """A value, a file of settings or an input is outside of what is allowed."""


class CheckpointError(DeerError):
    """Weights are missing, damaged or do not fit the configuration."""


class BudgetError(DeerError, ValueError):
    """A budget that cannot be met; the message names the cheapest one that can."""


class SimulatorError(DeerError):
    """The simulator cannot be built, or was asked for something it cannot do."""


def listed(names: Sequence[str]) -> str:
    """The first few names for a message, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
