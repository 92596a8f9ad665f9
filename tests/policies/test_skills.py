"""The recogniser of skills: names tasks, knows what is outside of them, and lives in a checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import Checkpoint, load, load_policy, save
from deer_policies.deer.skills import SkillRecogniser, Skills, words_of
from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.training.recipe import SkillsPhase
from deer_policies.training.skills import OutsideTexts, train_skills

ANNOTATIONS = Path(__file__).resolve().parents[3] / "shared" / "calvin_scenes" / "annotations"
COLOURS = ("red", "blue", "pink")
POLITE = ("", "please ", "now ", "could you ", "i want you to ", "robot ", "go and ", "kindly ")
THINGS = ("window", "oven", "book", "jar", "door", "gate", "bag", "letter", "tin", "box", "case", "tent")


def lifts(colour):
    others = [other for other in COLOURS if other != colour]
    plain = [f"{polite}lift the {colour} block" for polite in POLITE]
    return plain + [f"{polite}lift the {other} no the {colour} block" for polite in POLITE for other in others]


WORDINGS = {
    **{f"lift_{colour}_block": lifts(colour) for colour in COLOURS},
    "open_drawer": [f"{polite}{verb} the drawer" for polite in POLITE for verb in ("open", "pull out")],
}
OUTSIDE = OutsideTexts(
    [f"{polite}{verb} the {thing}" for polite in POLITE for verb in ("open", "lift") for thing in THINGS[:9]]
    + [f"do not {text}" for texts in WORDINGS.values() for text in texts],
    [f"{polite}{verb} the {thing}" for polite in POLITE for verb in ("open", "lift") for thing in THINGS[9:]],
)


def trained(learned=tuple(WORDINGS), seed=1):
    return train_skills(WORDINGS, OUTSIDE, learned, SkillsPhase(steps=300, batch=32), seed)


@pytest.fixture(scope="module")
def recogniser():
    return trained()


def test_tasks_are_named_and_other_texts_are_not(recogniser):
    found = recogniser.understand(["open the drawer please", "please lift the pink block", "lift the red block now"])
    assert [item.task for item in found] == ["open_drawer", "lift_pink_block", "lift_red_block"]
    assert all(item.known and item.score > 0.5 for item in found)
    outside = recogniser.understand(
        ["please open the oven now", "robot lift the gate please", "do not open the drawer please"]
    )
    assert [item.known for item in outside] == [False] * 3
    assert all(item.score < 0.5 for item in outside)


def test_the_word_that_corrects_another_counts(recogniser):
    """Both sentences have the same words; none of them was trained on."""
    texts = ["so lift the red no the blue block", "so lift the blue no the red block"]
    assert [item.task for item in recogniser.understand(texts)] == ["lift_blue_block", "lift_red_block"]


def test_a_text_is_judged_the_same_alone_and_beside_longer_ones(recogniser):
    alone = recogniser.probabilities(["open the drawer"])
    beside = recogniser.probabilities(["open the drawer", "please " * 40 + "lift the red block"])
    torch.testing.assert_close(alone[0], beside[0])


def test_a_task_that_was_not_learned_is_named_but_not_known():
    found = trained(learned=("open_drawer",)).understand(["lift the red block", "open the drawer"])
    assert [(item.task, item.known) for item in found] == [("lift_red_block", False), ("open_drawer", True)]
    assert found[0].offers == ("open the drawer",)
    assert "lift_red_block" in found[0].refusal("lift it")
    assert "'open the drawer'" in found[0].refusal("lift it")


def test_the_threshold_decides(recogniser):
    before = recogniser.skills.threshold
    try:
        assert not recogniser.with_threshold(0.9999).understand(["open the drawer"])[0].known
    finally:
        recogniser.with_threshold(before)
    assert recogniser.understand(["open the drawer"])[0].known


def test_equal_seeds_give_equal_recognisers(recogniser):
    again = trained().state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in recogniser.state_dict().items())


def test_words_are_read_without_punctuation():
    assert words_of("Don't, PLEASE - open it!") == ["don't", "please", "open", "it"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learned": ("fly",)}, "must be among the tasks"),
        ({"examples": {}}, "one example sentence for each"),
        ({"threshold": 1.0}, r"must be in \(0, 1\)"),
    ],
)
def test_skills_are_checked(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(Skills(("open",), ("open",), {"open": "open it"}), **changes)


def test_texts_outside_are_needed():
    with pytest.raises(ConfigError, match="to train on and to tune with"):
        OutsideTexts(["hello"], [])


@pytest.fixture
def checkpoint(tiny):
    config = tiny.config()
    torch.manual_seed(0)
    return Checkpoint(DeerModel(config), tiny.tokenizer(config))


class TestInACheckpoint:
    TEXTS = ("open the drawer", "lift the blue no the red block", "sing a song")

    def test_it_comes_back_as_it_was(self, checkpoint, recogniser, tmp_path):
        plain, path = tmp_path / "plain.safetensors", tmp_path / "with.safetensors"
        save(plain, checkpoint)
        save(path, replace(checkpoint, skills=recogniser))
        back = load(path)
        assert back.skills.skills == recogniser.skills
        assert torch.equal(back.skills.probabilities(self.TEXTS), recogniser.probabilities(self.TEXTS))
        policy = load_policy(path)
        assert policy.understanding(" open the drawer ").task == "open_drawer"
        with pytest.raises(ConfigError, match="instruction is empty"):
            policy.understanding("  ")
        assert load(plain).skills is None
        assert load_policy(plain).understanding("open the drawer") is None

    def test_a_recogniser_of_all_words_stays_small(self, recogniser):
        many = SkillRecogniser(
            Skills(tuple(map(str, range(34))), (), {str(task): "do" for task in range(34)}),
            [f"word{number}" for number in range(1800)],
        )
        assert sum(weight.numel() for weight in many.parameters()) * 4 < 1_000_000

    def test_damage_is_named(self, recogniser):
        text, weights = recogniser.to_json(), recogniser.state_dict()
        with pytest.raises(CheckpointError, match="recogniser of skills of this checkpoint can't be read"):
            SkillRecogniser.from_json(text[:-9], weights)
        weights.pop("out.weight")
        with pytest.raises(CheckpointError, match="recogniser of skills of this checkpoint can't be read"):
            SkillRecogniser.from_json(text, weights)


ORDERS = {
    "lift the red block": "lift_red_block_table",
    "grab the pink cube": "lift_pink_block_table",
    "get the blue block out of the drawer": "lift_blue_block_drawer",
    "push the red block left": "push_red_block_left",
    "rotate the blue block clockwise": "rotate_blue_block_right",
    "open the drawer": "open_drawer",
    "close the drawer": "close_drawer",
    "slide the door left": "move_slider_left",
    "turn on the light": "turn_on_lightbulb",
    "turn off the led": "turn_off_led",
    "stack the blocks": "stack_block",
    "unstack the blocks": "unstack_block",
    "put it in the drawer": "place_in_drawer",
    "push the block into the drawer": "push_into_drawer",
}


@pytest.fixture(scope="module", params=["deer-nano", "deer-nano-abc"])
def bundled(request):
    return load(request.param).skills


def test_bundled_policies_understand_the_plainest_orders_and_refuse_what_is_beyond_them(bundled):
    found = bundled.understand(list(ORDERS))
    assert {text: item.task for text, item in zip(ORDERS, found, strict=True) if item.known} == ORDERS
    beyond = ["bring me a coffee", "lift the green block", "do not open the drawer", "where is the red block", "dance"]
    assert [text for text, item in zip(beyond, bundled.understand(beyond), strict=True) if item.known] == []


def test_bundled_policies_understand_calvins_own_sentences(bundled):
    """One of the 34, on unstacking, is refused; none was trained on."""
    path = ANNOTATIONS / "new_playtable_validation.yaml"
    if not path.is_file():
        pytest.skip(f"CALVIN's sentences are not on this machine ({path})")
    texts = {task: texts[0] for task, texts in yaml.safe_load(path.read_text()).items()}
    found = bundled.understand(list(texts.values()))
    assert sum(item.known and item.task == task for task, item in zip(texts, found, strict=True)) >= 33
