"""`deer replay` of recordings of the running graph: the policy is shown the same again, and must answer the same."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_policies.interfaces import Policy
    from deer_ros.recording.replaying import Comparison, PolicySettings

REPORT_S = 5.0


def replay_policy(path: Path, policy: str | None, device: str | None) -> bool:
    """Replays a recording and prints what was compared; whether all was equal bit for bit.

    Args:
        path: of a recording.
        policy: name or path to use instead of the recorded one.
        device: to run it on instead of the recorded one.
    """
    from deer_ros.recording.reading import Recording
    from deer_ros.recording.replaying import replay
    from deer_ros.recording.runs import read_runs

    recording = Recording(path)
    runs = read_runs(recording)
    if recording.cut_short:
        print(recording.cut_short)
    if not runs.arm_known and runs.goals:
        print("the policy node's parameters were not recorded; the default arm is assumed")
    found = replay(recording, runs, partial(_load, policy, device), _pin_exit, _Progress())
    print(f"{path}: {found.goals} goals, {found.steps} policy steps, {found.actions} actions compared")
    for text in (*found.differences, *found.missing):
        print(f"  {text}")
    if found.pinned:
        print(f"  {found.pinned} steps had a latency budget: made at the recorded exits, only actions are compared")
    if found.different:
        print(f"  {found.different} steps differ; first {found.first}")
    elif found.equal:
        also = "" if found.pinned == found.steps else ", exits, distances and thresholds"
        print(f"  equal bit for bit: actions{also}")
    elif not found.steps:
        print("  nothing to compare: the recording holds no goal with the policy's steps and its frames")
    return found.equal


def _load(name: str | None, device: str | None, settings: PolicySettings) -> Policy:
    """The policy of a recording, with the layers that its budget loads; how long they take here is not asked."""
    from deer_ros.nodes.policy_loading import load_named

    return load_named(
        name or settings.policy,
        device or settings.device,
        settings.threads,
        settings.precision,
        settings.reuse_views_below,
        replace(settings.budget, latency_ms=None),
    )


def _pin_exit(policy: Policy, exit_index: int) -> None:
    from deer_policies.deer.exits import ThresholdRule
    from deer_policies.deer.policy import DeerPolicy

    assert isinstance(policy, DeerPolicy)
    policy.set_exit_rule(ThresholdRule.fixed(exit_index))


class _Progress:
    """Prints how far it is, every few seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, found: Comparison) -> None:
        now = time.monotonic()
        if now - self._told > REPORT_S:
            self._told = now
            print(f"{found.steps} policy steps, {found.different} differ", flush=True)
