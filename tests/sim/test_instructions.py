"""Instructions: enough of them, all different, and training kept apart from validation."""

import re
from collections import Counter
from pathlib import Path

import pytest

from deer_policies.errors import ConfigError
from deer_policies.interfaces import checked_instruction
from deer_sim import instructions
from deer_sim.environment import BLOCKS
from deer_sim.tasks import TASKS

OFFICIAL = Path(__file__).resolve().parents[3] / "shared/calvin_scenes"


def normal(text: str) -> str:
    return " ".join(text.lower().strip().rstrip(".").split())


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_enough_wordings(task: str) -> None:
    assert len(set(instructions.training(task))) >= 50
    assert len(set(instructions.validation(task))) >= 6
    for text in (*instructions.training(task), *instructions.validation(task)):
        assert checked_instruction(text) == text
        assert "{" not in text


def test_templates_stand_for_every_choice() -> None:
    words = {"light": ["lamp", "bulb"]}
    assert list(instructions.expanded("(please|) light the <light>", words)) == [
        "please light the lamp",
        "please light the bulb",
        "light the lamp",
        "light the bulb",
    ]
    assert list(instructions.expanded("wait", words)) == ["wait"]


def test_no_wording_is_used_twice() -> None:
    every = [normal(text) for task in TASKS for text in (*instructions.training(task), *instructions.validation(task))]
    assert [text for text, count in Counter(every).items() if count > 1] == []


@pytest.mark.parametrize("task", [task for task in TASKS if any(f"_{block}_" in task for block in BLOCKS)])
def test_colour_of_the_block_is_said(task: str) -> None:
    colour = next(block for block in BLOCKS if f"_{block}_" in task)
    for text in (*instructions.training(task), *instructions.validation(task)):
        assert colour in words_of(text)
        assert not any(other in words_of(text) for other in BLOCKS if other != colour)


@pytest.mark.parametrize("task", [task for task in TASKS if task.endswith(("_left", "_right"))])
def test_one_direction_is_said(task: str) -> None:
    words = {"right": {"right", "rightwards", "clockwise"}, "left": {"left", "leftwards", "counterclockwise"}}
    wanted, other = ("right", "left") if task.endswith("right") else ("left", "right")
    for text in (*instructions.training(task), *instructions.validation(task)):
        assert words[wanted] & words_of(text), text
        assert not words[other] & words_of(text), text


def test_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown task 'fly'"):
        instructions.training("fly")


def test_nothing_is_copied_from_calvin() -> None:
    files = [*OFFICIAL.rglob("*annotations*/*.yaml"), *OFFICIAL.rglob("new_playtable*.yaml")]
    if not files:
        pytest.skip("CALVIN's annotations are not on this machine")
    official = {normal(line.strip(" -\"'")) for file in files for line in file.read_text().splitlines()}
    ours = {normal(text) for task in TASKS for text in (*instructions.training(task), *instructions.validation(task))}
    assert ours & official == set()
