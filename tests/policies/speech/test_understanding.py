"""From readings to meanings, with a judge and an embedder that the tests make up."""

import numpy as np
import pytest

from deer_policies.errors import ConfigError
from deer_policies.speech.recognition.engine import Alternative, Transcript
from deer_policies.speech.recognition.words import normalised, put_right, word_errors
from deer_policies.speech.understanding import slots
from deer_policies.speech.understanding.interpreting import Intent, Interpreter, InterpreterSettings
from deer_policies.speech.understanding.phrasing import choice, plan_spoken, question, spoken

PUSHES = {f"push the {c} block to the {s}": f"push_{c}_block_{s}" for c in slots.COLOURS for s in slots.SIDES}
LIFTS = {f"lift the {colour} block": f"lift_{colour}_block_table" for colour in slots.COLOURS}
SENTENCES = {
    "open the drawer": "open_drawer",
    "can you open the drawer": "open_drawer",
    "close the drawer": "close_drawer",
    "move the door to the left": "move_slider_left",
    "move the door to the right": "move_slider_right",
    "turn on the light": "turn_on_lightbulb",
    "turn on the yellow light": "turn_on_lightbulb",
    "turn on the led": "turn_on_led",
    "put the block in the drawer": "place_in_drawer",
    **LIFTS,
    **PUSHES,
}
TASKS = tuple(dict.fromkeys(SENTENCES.values()))
EXAMPLES = {task: [text for text, of in SENTENCES.items() if of == task] for task in TASKS}


class Judge:
    """Knows SENTENCES, and what `also` says; `sure` is how sure it is of the first."""

    tasks = TASKS

    def __init__(self):
        self.sure = 0.95
        self.also = {}

    def probabilities(self, texts):
        found = np.zeros((len(texts), len(TASKS) + 1))
        for row, text in enumerate(texts):
            known = {SENTENCES[text]: self.sure} if text in SENTENCES else {}
            for task, score in self.also.get(text, known).items():
                found[row, TASKS.index(task)] = score
            found[row, -1] = 1 - found[row].sum()
        return found


class Embedder:
    """A text is near to itself alone."""

    def __init__(self):
        self._places = {}

    def embed(self, texts):
        vectors = np.zeros((len(texts), 512), np.float32)
        for row, text in enumerate(texts):
            vectors[row, self._places.setdefault(text, len(self._places))] = 1.0
        return vectors


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def interpreter(judge):
    return Interpreter(judge, None, EXAMPLES)


def said(*texts, confidence=0.9):
    weights = (0.7, 0.3) if len(texts) == 2 else (1.0,)
    alternatives = tuple(Alternative(text, weight) for text, weight in zip(texts, weights, strict=True))
    return Transcript(alternatives, confidence, "test")


@pytest.mark.parametrize(("text", "task"), [item for item in SENTENCES.items() if item[0] != "turn on the light"])
def test_an_instruction_is_taken(interpreter, text, task):
    meaning = interpreter.interpret(said(text))
    assert (meaning.intent, meaning.tasks, meaning.reply) == (Intent.INSTRUCTION, (task,), spoken(task))


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("stop", Intent.STOP),
        ("no no stop it", Intent.STOP),
        ("open the drawer no halt", Intent.STOP),
        ("wait a moment", Intent.PAUSE),
        ("okay robot pause", Intent.PAUSE),
        ("go on please", Intent.RESUME),
        ("now continue", Intent.RESUME),
        ("think harder", Intent.MORE),
        ("please save power", Intent.LESS),
        ("what are you doing", Intent.QUESTION),
        ("is the drawer open", Intent.QUESTION),
        ("robot where is the red block", Intent.QUESTION),
        ("do not open the drawer", Intent.NOTHING),
        ("never open the drawer", Intent.NOTHING),
        ("the drawer was open this morning", Intent.NOTHING),
        ("there is no drawer", Intent.NOTHING),
        ("make me a coffee", Intent.NOTHING),
        ("", Intent.NOTHING),
    ],
)
def test_other_things_are_told_apart(interpreter, judge, text, intent):
    # Even if the judge takes everything for an order.
    judge.also = {text: {"open_drawer": 0.9}} if "drawer" in text else {}
    assert interpreter.interpret(said(text)).intent is intent


def test_nothing_said_means_nothing(interpreter):
    assert interpreter.interpret(Transcript((), 0.0, "test")).intent is Intent.NOTHING


def test_a_stop_in_any_reading_is_a_stop(interpreter):
    assert interpreter.interpret(said("open the top", "open the stop")).intent is Intent.STOP


def test_readings_of_one_task_add_up_and_others_do_not(interpreter, judge):
    judge.sure = 0.9
    both = interpreter.interpret(said("can you open the drawer", "open the drawer"))
    assert (both.intent, both.score) == (Intent.INSTRUCTION, pytest.approx(0.9))
    one = interpreter.interpret(said("uncle open the door", "open the drawer"))
    assert (one.intent, one.tasks, one.score) == (Intent.NOTHING, ("open_drawer",), pytest.approx(0.27))


@pytest.mark.parametrize("first", ["open the drawer", "lift the red block and then open the drawer"])
@pytest.mark.parametrize(("share", "intent"), [(0.05, Intent.INSTRUCTION), (0.1, Intent.NOTHING)])
def test_an_order_that_may_have_been_a_ban_is_none(interpreter, judge, first, share, intent):
    judge.sure = 1.0
    readings = (Alternative(first, 1.0 - share), Alternative("never open the drawer", share))
    assert interpreter.interpret(Transcript(readings, 0.9, "test")).intent is intent
    interpreter.settings = InterpreterSettings(doubt=0.0)
    assert interpreter.interpret(said(first)).intent is Intent.INSTRUCTION, "nobody said not to"


@pytest.mark.parametrize("text", ["open the drawer", "go on", "think harder", "what are you doing"])
def test_what_was_hardly_understood_is_not_taken(interpreter, text):
    assert interpreter.interpret(said(text, confidence=0.05)).intent is Intent.NOTHING


def test_neither_is_an_answer_but_a_stop_is(interpreter):
    interpreter.interpret(said("lift the block"))
    assert interpreter.interpret(said("the red one", confidence=0.05)).intent is Intent.NOTHING
    assert interpreter.interpret(said("stop", confidence=0.05)).intent is Intent.STOP


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("lift the green block", "lift_red_block_table"),
        ("push the red block to the right", "push_red_block_left"),
        ("open the window", "open_drawer"),
        ("close the drawer", "open_drawer"),
        ("turn on the radio", "turn_on_led"),
        ("turn on the led", "turn_on_lightbulb"),
    ],
)
def test_a_judge_that_is_wrong_is_contradicted_by_the_words(interpreter, judge, text, task):
    judge.also = {text: {task: 0.9}}
    assert interpreter.interpret(said(text)).intent is Intent.NOTHING


def test_a_text_must_be_near_an_example(judge):
    judge.also = {"drawer drawer drawer": {"open_drawer": 0.9}}
    near = Interpreter(judge, Embedder(), EXAMPLES)
    assert Interpreter(judge, None, EXAMPLES).interpret(said("drawer drawer drawer")).intent is Intent.INSTRUCTION
    assert near.interpret(said("drawer drawer drawer")).intent is Intent.NOTHING
    assert near.interpret(said("open the drawer")).intent is Intent.INSTRUCTION


@pytest.mark.parametrize(
    ("text", "asked", "answer", "task"),
    [
        ("lift the block", "the blue, pink or red block?", "the red one", "lift_red_block_table"),
        ("turn on the light", "the yellow or green light?", "yellow please", "turn_on_lightbulb"),
        ("move the door", "to the left or right?", "left", "move_slider_left"),
        ("push the block to the left", "the blue, pink or red block?", "um pink", "push_pink_block_left"),
    ],
)
def test_what_is_left_open_is_asked_and_the_answer_completes_it(interpreter, text, asked, answer, task):
    meaning = interpreter.interpret(said(text))
    assert (meaning.intent, meaning.reply) == (Intent.UNSURE, asked)
    meaning = interpreter.interpret(said(answer))
    assert (meaning.intent, meaning.tasks) == (Intent.INSTRUCTION, (task,))


def test_two_things_left_open_are_asked_one_after_the_other(interpreter):
    assert interpreter.interpret(said("push the block")).reply == "the blue, pink or red block?"
    assert interpreter.interpret(said("the blue one")).reply == "to the left or right?"
    assert interpreter.interpret(said("to the right")).tasks == ("push_blue_block_right",)


def test_an_answer_counts_only_right_after_the_question(interpreter):
    interpreter.interpret(said("lift the block"))
    interpreter.interpret(said("make me a coffee"))
    assert interpreter.interpret(said("the red one")).intent is Intent.NOTHING


@pytest.mark.parametrize("answer", ["neither", "not the red one", "the green one"])
def test_an_answer_that_picks_nothing_moves_nothing(interpreter, answer):
    interpreter.interpret(said("lift the block"))
    assert interpreter.interpret(said(answer)).intent is not Intent.INSTRUCTION


def test_another_order_instead_of_an_answer_is_an_order(interpreter):
    interpreter.interpret(said("lift the block"))
    assert interpreter.interpret(said("open the drawer")).tasks == ("open_drawer",)


def test_between_two_tasks_the_robot_asks(interpreter, judge):
    judge.also = {"do something with the drawer": {"open_drawer": 0.45, "close_drawer": 0.4}}
    meaning = interpreter.interpret(said("do something with the drawer"))
    assert (meaning.intent, meaning.reply) == (Intent.UNSURE, "open or close it?")


def test_a_block_is_lifted_before_it_is_put_somewhere(interpreter):
    meaning = interpreter.interpret(said("put the red block in the drawer"))
    assert meaning.tasks == ("lift_red_block_table", "place_in_drawer")
    assert meaning.reply == "red block, into the drawer"
    interpreter.done("lift_red_block_table")
    assert interpreter.interpret(said("put the red block in the drawer")).tasks == ("place_in_drawer",)
    interpreter.done("place_in_drawer")
    assert len(interpreter.interpret(said("put the red block in the drawer")).tasks) == 2


def test_orders_in_a_row_are_taken_together_or_not_at_all(interpreter):
    meaning = interpreter.interpret(said("open the drawer and then turn on the led"))
    assert meaning.tasks == ("open_drawer", "turn_on_led")
    assert meaning.reply == "drawer, open, then green light, on"
    assert interpreter.interpret(said("open the drawer then make me a coffee")).intent is Intent.NOTHING


def test_bad_thresholds_and_missing_examples_are_refused(judge):
    with pytest.raises(ConfigError, match=r"accept is 1\.5"):
        InterpreterSettings(accept=1.5)
    with pytest.raises(ConfigError, match=r"far is 0\.9"):
        InterpreterSettings(far=0.9)
    with pytest.raises(ConfigError, match="no example sentences of task open_drawer"):
        Interpreter(judge, None, {})


def test_no_sentence_of_calvins_tasks_contradicts_its_task():
    from deer_sim import instructions
    from deer_sim.tasks import TASKS as ALL

    assert len({spoken(task) for task in ALL}) == len(ALL)
    for task in ALL:
        wrong = [text for text in instructions.bare(task) if slots.contradicts(normalised(text), task)]
        assert len(wrong) <= 0.02 * len(instructions.bare(task)), (task, wrong[:5])
    lifts = slots.siblings("lift_red_block_slider", "colour", ALL)
    assert lifts == [f"lift_{colour}_block_slider" for colour in ("red", "blue", "pink")]
    assert question("colour", lifts) == "the red, blue or pink block?"
    assert choice(("open_drawer", "turn_on_led")) == "drawer, open or green light, on?"
    assert (
        plan_spoken(("lift_red_block_table", "stack_block")) == "red block, lift from the table, then stack the blocks"
    )


def test_words_are_counted_and_put_right():
    assert normalised("Turn ON the L.E.D., please; it\u2019s 2!") == "turn on the l e d please it's two"
    assert put_right("Turn on the L.E.D.") == "turn on the led"
    assert put_right("lift the read block") == "lift the red block"
    assert put_right("read the book") == "read the book"
    assert put_right("open the draw") == "open the drawer"
    assert word_errors("open the drawer", "open a drawer now") == (2, 3)
    assert word_errors("stop", "") == (1, 1)


@pytest.mark.parametrize(
    "text", ["lift the red block inside the door", "lift the red block from the door", "lift the red block inside"]
)
def test_a_place_that_may_have_been_the_drawer_is_asked_about(text):
    class Lifts(Judge):
        tasks = ("lift_red_block_table", "lift_red_block_slider", "lift_red_block_drawer")

        def probabilities(self, texts):
            return np.tile([0.05, 0.95, 0.0, 0.0], (len(texts), 1))

    interpreter = Interpreter(Lifts(), None, {task: [task] for task in Lifts.tasks})
    meaning = interpreter.interpret(said(text))
    assert (meaning.intent, meaning.reply) == (Intent.UNSURE, "in the cabinet or drawer?")
    answer = interpreter.interpret(said("the drawer"))
    assert (answer.intent, answer.tasks) == (Intent.INSTRUCTION, ("lift_red_block_drawer",))
    sure = interpreter.interpret(said("lift the red block from the sliding door"))
    assert (sure.intent, sure.tasks) == (Intent.INSTRUCTION, ("lift_red_block_slider",))
