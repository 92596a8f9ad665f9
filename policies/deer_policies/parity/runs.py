"""Replays of runs over several control steps: fixed exits, mixed exits, dynamic exits, and each exit's own head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deer_policies.deer.exits import ThresholdRule, run_to_exit
from deer_policies.parity.comparison import TOLERANCE, Comparison
from deer_policies.parity.recording import Recording

CHECKED = -1.0
"""A threshold that no distance is below, at an exit whose distance is computed all the same."""
STAGED, LIMITED = r"dyn_stage(\d+)", r"dyn_max(\d+)"
"""Keys of runs that ask at every nth step only, and of runs that may use so many layers only."""
RuleAt = Callable[[int, list[int]], ThresholdRule]
"""Gives the rule of a step from its number and the positions of the exits taken so far."""


def exit_layers(recording: Recording, found: Comparison) -> None:
    """The layers that the configuration puts exits behind."""
    found.same("exit_ids", recording.exit_layers, recording.array("exit_ids"))


def _always(rule: ThresholdRule) -> RuleAt:
    return lambda step, taken: rule


def static_exits(recording: Recording, found: Comparison) -> None:
    """Each exit taken at every step."""
    for layer in recording.below("static"):
        rule = ThresholdRule.fixed(recording.exit_at(layer))
        _rollout(recording, found, f"static/{layer}", _always(rule))


def mixed_exits(recording: Recording, found: Comparison) -> None:
    """A given exit at every step, so that the head's state comes from different ones."""
    layers = recording.array("alternating/exit").tolist()
    rules = [ThresholdRule.fixed(recording.exit_at(layer)) for layer in layers]
    _rollout(recording, found, "alternating", lambda step, taken: rules[step])


def dynamic_exits(recording: Recording, found: Comparison) -> None:
    """Exits chosen by thresholds, all layers allowed; and with thresholds that no exit meets."""
    _rollout(recording, found, "dyn", _always(_threshold_rule(recording)))
    if recording.has("dyn_never"):
        never = ThresholdRule((CHECKED,) * len(recording.exit_layers))
        _rollout(recording, found, "dyn_never", _always(never))


def stage_reuse(recording: Recording, found: Comparison) -> None:
    """Thresholds asked at every nth step only; the steps between take the same exit again."""
    rule = _threshold_rule(recording)
    for match in recording.top(STAGED):
        steps = int(match[1])

        def reused(step: int, taken: list[int], steps: int = steps) -> ThresholdRule:
            return ThresholdRule.fixed(taken[-1]) if step % steps else rule

        _rollout(recording, found, match[0], reused)


def limited_layers(recording: Recording, found: Comparison) -> None:
    """Thresholds with only so many layers allowed (max_layer)."""
    for match in recording.top(LIMITED):
        # The run stops at the first exit that is not below the last allowed layer.
        below = sum(layer < int(match[1]) - 1 for layer in recording.exit_layers)
        rule = _threshold_rule(recording).limited(below + 1)
        _rollout(recording, found, match[0], _always(rule))


def auxiliary_heads(recording: Recording, found: Comparison) -> None:
    """Each exit's own head on the first steps."""
    for layer in recording.below("layerwise"):
        position = recording.exit_at(layer)
        poses = recording.array(f"layerwise/{layer}/pose")
        media = recording.model.media(recording.images[: len(poses)])
        features = list(recording.model.exit_features(recording.text(1).repeated(len(poses)), media))
        pose, logit, _ = recording.model.auxiliary_heads[position](features[position + 1][None])
        found.near(f"layerwise/{layer}/pose", pose[0], poses)
        found.near(f"layerwise/{layer}/grip_prob", logit.sigmoid()[0], recording.array(f"layerwise/{layer}/grip_prob"))


def _threshold_rule(recording: Recording) -> ThresholdRule:
    # The official code computes the distance of an exit that is never taken too, and it was recorded.
    return ThresholdRule(tuple(max(float(value), CHECKED) for value in recording.array("dyn_thresholds")))


@dataclass(frozen=True)
class _Recorded:
    """In place of an exit criterion: the distances of a step as they were recorded; candidates are exit numbers."""

    distances: list[float]

    def distance(self, previous: Any, current: Any, step: int) -> torch.Tensor:
        return torch.tensor(self.distances[current], dtype=torch.float64)


def _exit_for(rule: ThresholdRule, distances: list[float]) -> int:
    """Number of exits that the rule goes past on recorded distances; all of them if it would go on behind the last."""
    rule = ThresholdRule(rule.thresholds, _Recorded(distances))
    candidates: Any = range(-1, len(distances))
    for position in range(len(distances)):
        if rule.decide(candidates[: position + 2], 0).stop:
            return position
    return len(distances)


def _tied(rule: ThresholdRule, distances: list[float]) -> ThresholdRule:
    """The rule with the threshold of the exit taken as low as its distance, where the release still stops."""
    thresholds = list(rule.thresholds)
    thresholds[len(distances) - 1] = distances[-1]
    return ThresholdRule(tuple(thresholds))


def _settled(rule: ThresholdRule, distances: list[float]) -> ThresholdRule:
    """The rule with thresholds moved away from recorded distances that are as good as equal to them.

    There the last bit of a distance would decide, which is not the same on every machine. What the rule makes of
    equal numbers is compared on the recorded ones, see `_exit_for`.
    """
    thresholds = list(rule.thresholds)
    for position, distance in enumerate(distances[: len(thresholds)]):
        if abs(distance - thresholds[position]) <= TOLERANCE:
            margin = 2.0 * TOLERANCE
            thresholds[position] = distance + (margin if distance <= thresholds[position] else -margin)
    return ThresholdRule(tuple(thresholds))


def _rollout(recording: Recording, found: Comparison, key: str, rule_at: RuleAt) -> None:
    """Runs the recorded steps and compares exits, distances, actions and the head's last state."""
    model, text = recording.model, recording.text(1)
    state, taken = model.head.initial_state(1), list[int]()
    poses, probabilities = recording.tensor(f"{key}/pose"), recording.tensor(f"{key}/grip_prob")
    actions = recording.array(f"{key}/env_action_fp16") if recording.has(f"{key}/env_action_fp16") else None
    exits = recording.array(f"{key}/exit").tolist()
    for step in range(len(poses)):
        rule = rule_at(step, taken)
        checked: list[float] = []
        if recording.has(f"{key}/deltas"):
            checked = recording.array(f"{key}/deltas/{step}").tolist()
        if checked:
            for decided in (rule, _tied(rule, checked)):
                deeper = recording.exit_layers[_exit_for(decided, checked) :]
                found.same(f"{key}/deltas", deeper[:1], [exits[step]])
            rule = _settled(rule, checked)
        media = model.media(recording.images[step : step + 1])
        candidates, distances = run_to_exit(model, text, media, None, state, rule, step)
        pose, logit, state = candidates[-1].output
        taken.append(len(candidates) - 2)
        found.near(f"{key}/pose", pose[0], poses[step])
        found.near(f"{key}/grip_prob", logit.sigmoid()[0], probabilities[step])
        if recording.has(f"{key}/deltas"):
            # With a single exit in use nothing depends on its distance, and ours is not computed.
            recorded = torch.tensor(checked if len(rule.thresholds) > 1 else [], dtype=torch.float64)
            found.near(f"{key}/deltas", recorded.new_tensor(distances), recorded)
        if actions is not None:
            _compare_action(found, f"{key}/env_action_fp16", pose[0], float(logit), actions[step])
    found.same(f"{key}/exit", [recording.exit_layers[position] for position in taken], exits)
    found.near(f"{key}/lstm_h", state.hidden, recording.array(f"{key}/lstm_h"))
    found.near(f"{key}/lstm_c", state.cell, recording.array(f"{key}/lstm_c"))


def _compare_action(found: Comparison, key: str, pose: torch.Tensor, logit: float, action: np.ndarray) -> None:
    """The action sent to the environment is rounded to float16; an error is what goes beyond half of its last bit."""
    half_bit = torch.from_numpy(np.spacing(np.abs(action[:6])).astype(np.float64) / 2.0)
    excess = (pose.double() - torch.from_numpy(action[:6]).double()).abs() - half_bit
    found.near(key, excess.clamp(min=0.0), torch.zeros(6))
    found.same(key, 1.0 if logit > 0.0 else -1.0, float(action[6]))
