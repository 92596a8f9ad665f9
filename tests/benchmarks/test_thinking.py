"""Where the policy thinks longer: labels of steps, tables, and the chains that are filmed."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import thinking
from deer_policies.errors import ConfigError
from deer_sim.results import ChainResult, SubtaskResult
from deer_sim.step_record import StepRecord

AWAY, TOWARDS, STILL = [-1, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 1], [-0.1, 0, 0, 0, 0, 0, 1]
CLOSING = [1, 0, 0, 0, 0, 0, -1]


def subtask(task, success, steps=6, layers=2.0):
    return SubtaskResult(task, "do it", success, steps, {"0": steps}, layers, 0.1, 0.2, 0.3, 0.4)


def record(steps, exits, **changes):
    towards = np.array([TOWARDS] * steps, float)
    columns = {
        "subtask": np.zeros(steps, int),
        "asked": np.ones(steps, bool),
        "exit_index": np.array(exits),
        "action": towards,
        "expert_action": towards,
        "touching": np.zeros(steps, bool),
    }
    return StepRecord(**{**columns, **changes})


def test_a_move_against_the_expert_goes_away_or_turns_the_gripper():
    action = np.array([TOWARDS, AWAY, STILL, CLOSING], float)
    expert = np.array([TOWARDS] * 4, float)
    assert thinking.against_expert(action, expert).tolist() == [False, True, False, True]


def test_steps_are_labelled_by_phase_touch_and_what_went_before():
    steps, actions = 24, np.array([TOWARDS] * 24, float)
    actions[3] = AWAY
    touching = np.zeros(steps, bool)
    touching[15] = True
    # The second subtask begins at step 18; nothing of the first counts in it.
    numbers = np.repeat([0, 1], [18, 6])
    result = ChainResult("a", 2, (subtask("x", True, 18), subtask("y", False)))
    found = thinking.labelled(
        result, record(steps, [0, 1] * 12, action=actions, touching=touching, subtask=numbers), [1, 3]
    )
    assert found.layers.tolist() == [2, 4] * 12
    which = {name: np.flatnonzero(mask).tolist() for name, mask in found.labels.items()}
    assert which["first third of a subtask"] == [*range(6), 18, 19]
    assert which["last third"] == [*range(12, 18), 22, 23]
    assert which["touches something"] == [15]
    assert which["up to 10 steps before it does"] == list(range(5, 15))
    assert which["moves freely"] == [*range(5), *range(16, 24)]
    assert which["up to 5 steps after a move against the expert's"] == list(range(4, 9))
    assert which["subtasks that failed"] == list(range(18, 24))


def test_only_steps_at_which_the_policy_was_asked_count():
    result = ChainResult("a", 1, (subtask("x", True),))
    asked = np.array([True, False, False] * 2)
    found = thinking.labelled(result, record(6, [0, 0, 0, 1, 1, 1], asked=asked), [1, 3])
    assert found.layers.tolist() == [2, 4]
    assert found.labels["last third"].tolist() == [False, False]
    assert found.labels["second third"].tolist() == [False, True]


def test_mean_depth_is_over_the_steps_of_a_label():
    result = ChainResult("a", 1, (subtask("x", True),))
    chains = [thinking.labelled(result, record(6, [0, 0, 0, 0, 1, 1]), [1, 3])] * 2
    rows = [line.split(" | ") for line in thinking.depth_table(chains).splitlines()]
    depths = {row[0].strip("| "): row[2] for row in rows}
    assert depths["all steps"].startswith("2.67 ")
    assert depths["last third"].startswith("4.00 [4.00, 4.00]")
    assert "subtasks that failed" not in depths


@pytest.fixture
def folder(tmp_path):
    """An evaluation of four starts of each of three tasks, the third never solved."""
    results = [
        ChainResult(
            f"D/{task}/0/{index}", 1, (subtask(task, success and index != 1, layers=layers),), steps="steps.npz"
        )
        for task, success, layers in (("easy", True, 2.0), ("middle", True, 3.0), ("hard", False, 4.0))
        for index in range(4)
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))
    np.savez(tmp_path / "steps.npz", **vars(record(6, [0] * 6)))
    per_task = {
        "easy": {"attempts": 4, "success": 3, "rate": 0.75, "mean_steps": 6.0},
        "middle": {"attempts": 4, "success": 3, "rate": 0.75, "mean_steps": 9.0},
        "hard": {"attempts": 4, "success": 0, "rate": 0.0, "mean_steps": 6.0},
        "rare": {"attempts": 1, "success": 0, "rate": 0.0, "mean_steps": 6.0},
    }
    told = {"policy": "nano", "sequences": 12, "mode": "tasks", "seed": 0, "environment": "playtable:D"}
    told |= {"exit_layers": [1, 3], "weights_sha256": "ab", "commit": "", "per_task": per_task}
    report = {**told, "command": "deer eval --tasks easy --keep-steps --films 0 --out before"}
    (tmp_path / "report.json").write_text(json.dumps(report))
    return tmp_path


def test_the_section_names_and_films_the_easiest_and_the_hardest(folder):
    report = json.loads((folder / "report.json").read_text())
    del report["per_task"]["rare"]
    (folder / "report.json").write_text(json.dumps(report))
    ran = []
    text = thinking.section(folder, folder / "films", ran.append)
    assert "Hardest: hard. Easiest: easy." in text
    rows = [line for line in text.splitlines() if line.startswith(("| hard", "| middle", "| easy"))]
    assert rows == [
        "| hard | 0/4 | 6 | 4.00 |  |",
        "| middle | 3/4 | 9 | 3.00 | 3.00 |",
        "| easy | 3/4 | 6 | 2.00 | 2.00 |",
    ]
    (command,) = ran
    keys = command[command.index("--chains") + 1 : command.index("--chains") + 3]
    assert keys == ["D/easy/0/3", "D/hard/0/3"]
    assert command[-4:] == ["--films", "2", "--out", str(folder / "films")]


def test_tasks_that_were_hardly_tried_are_not_named(folder):
    report = json.loads((folder / "report.json").read_text())
    easy, hard = thinking.extremes(report)
    assert (easy, hard) == (["easy"], ["hard"])


def test_an_evaluation_without_steps_is_refused(folder):
    path = folder / "results.jsonl"
    path.write_text(path.read_text().replace('"steps": "steps.npz"', '"steps": ""', 1))
    with pytest.raises(ConfigError, match="kept no steps of 1 chains"):
        thinking.section(folder, None)
    (folder / "report.json").unlink()
    with pytest.raises(ConfigError, match=r"has no report\.json"):
        thinking.section(folder, None)
