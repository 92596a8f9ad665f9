"""Instructions: enough of them, all different, and training kept apart from validation."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from deer_policies.errors import ConfigError
from deer_policies.interfaces import checked_instruction
from deer_sim import instructions
from deer_sim.environment import BLOCKS
from deer_sim.tasks import TASKS
from deer_sim.templates import expanded

OFFICIAL = Path(__file__).resolve().parents[3] / "shared/calvin_scenes"


def normal(text: str) -> str:
    return " ".join(text.lower().strip().rstrip(".").split())


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_enough_wordings(task: str) -> None:
    assert len(set(instructions.training(task))) >= 2000
    assert len(set(instructions.plain_training(task))) >= 50
    for group, least in (("written", 6), ("spoken", 8), ("wordy", 8)):
        assert len(set(instructions.validation(task, group))) >= least
    for text in (*instructions.training(task), *instructions.validation(task, instructions.EVERY)):
        assert checked_instruction(text) == text
        assert not set("{}<>|()") & set(text)


def test_templates_stand_for_every_choice() -> None:
    words = {"light": ["lamp", "bulb"]}
    assert list(expanded("(please|) light the <light>", words)) == [
        "please light the lamp",
        "please light the bulb",
        "light the lamp",
        "light the bulb",
    ]
    assert list(expanded("wait", words)) == ["wait"]


def test_no_wording_is_used_twice() -> None:
    kinds = (instructions.plain_training, lambda task: instructions.validation(task, instructions.EVERY))
    every = [normal(text) for task in TASKS for kind in kinds for text in kind(task)]
    assert [text for text, count in Counter(every).items() if count > 1] == []


def test_no_sentence_kept_for_validation_is_trained_on_in_any_style() -> None:
    kept = {normal(text) for task in TASKS for text in instructions.validation(task, instructions.EVERY)}
    trained = [text for task in TASKS for text in instructions.training(task)]
    assert [text for text in trained if normal(text) in kept] == []
    assert len(trained) > 34 * 2500


def test_bare_orders_are_those_without_their_opening() -> None:
    drawer = instructions.bare("open_drawer")
    assert "open the drawer" in drawer
    assert not [text for text in drawer if text.startswith(("mind ", "could ", "can ", "i "))]
    every = {text for task in TASKS for text in instructions.bare(task)}
    assert every.isdisjoint(text for task in TASKS for text in instructions.validation(task, instructions.EVERY))
    assert every.isdisjoint(text for task in TASKS for text in instructions.plain_training(task))


def test_groups_are_worded_as_they_say() -> None:
    spoken = [text for task in TASKS for text in instructions.validation(task, "spoken")]
    assert [text for text in spoken if re.search(r"[^a-z' ]", text)] == []
    wordy = [text for task in TASKS for text in instructions.validation(task, "wordy")]
    assert [text for text in wordy if not 20 <= len(text.split()) <= 40] == []
    assert instructions.validation("open_drawer") == instructions.validation("open_drawer", "written")
    together = instructions.validation("open_drawer", instructions.EVERY)
    assert len(together) == sum(len(instructions.validation("open_drawer", group)) for group in instructions.GROUPS)
    with pytest.raises(ConfigError, match=r"group of wordings 'sung'.*written, spoken, wordy"):
        instructions.validation("open_drawer", "sung")


def test_training_sentences_are_the_same_each_time() -> None:
    before = instructions.training("open_drawer")
    instructions.training.cache_clear()
    assert instructions.training("open_drawer") == before


@pytest.mark.parametrize("task", [task for task in TASKS if any(f"_{block}_" in task for block in BLOCKS)])
def test_colour_of_the_block_is_said(task: str) -> None:
    colour = next(block for block in BLOCKS if f"_{block}_" in task)
    for text in (*instructions.plain_training(task), *instructions.validation(task)):
        assert colour in words_of(text)
        assert not any(other in words_of(text) for other in BLOCKS if other != colour)


@pytest.mark.parametrize("task", [task for task in TASKS if task.endswith(("_left", "_right"))])
def test_one_direction_is_said(task: str) -> None:
    words = {"right": {"right", "rightwards", "clockwise"}, "left": {"left", "leftwards", "counterclockwise"}}
    wanted, other = ("right", "left") if task.endswith("right") else ("left", "right")
    for text in (*instructions.plain_training(task), *instructions.validation(task)):
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
    kinds = (instructions.training, lambda task: instructions.validation(task, instructions.EVERY))
    ours = {normal(text) for task in TASKS for kind in kinds for text in kind(task)}
    assert ours & official == set()


class TestFraming:
    def sentences(self, style: str, task: str = "push_red_block_right", count: int = 400) -> list[str]:
        framer = instructions.task_framer(task, random.Random(1))
        return [getattr(framer, style)() for _ in range(count)]

    def test_speech_has_no_punctuation_but_hesitations(self) -> None:
        spoken = self.sentences("spoken")
        assert [text for text in spoken if re.search(r"[,.!;:]", text)] == []
        assert sum(bool(words_of(text) & {"uh", "um", "er", "erm", "like"}) for text in spoken) > 100

    def test_the_last_colour_of_a_correction_is_the_right_one(self) -> None:
        corrected = [text for text in self.sentences("spoken") if words_of(text) & {"blue", "pink"}]
        assert len(corrected) > 20
        last = [[word for word in text.split() if word in BLOCKS][-1] for text in corrected]
        assert set(last) == {"red"}

    def test_wordy_sentences_are_long_and_hold_the_request(self) -> None:
        wordy = self.sentences("wordy")
        assert sum(len(text.split()) >= 15 for text in wordy) > 0.9 * len(wordy)
        assert all({"red", "right"} <= words_of(text) or "rightwards" in text for text in wordy)

    def test_what_is_set_aside_is_not_what_is_asked_for(self) -> None:
        aside = [text for text in self.sentences("wordy", "open_drawer") if "never mind the" in text]
        assert aside
        assert [text for text in aside if "never mind the drawer" in text] == []
