"""The speech node over ROS, with made-up ears and mind, and a policy that does what it is told."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from deer_msgs.action import FollowInstruction
from deer_msgs.msg import ExitReport, SafetyState, VoiceCommand
from deer_msgs.srv import BeginSubtask, SetBudget
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future
from std_msgs.msg import Bool

from deer_policies.speech.recognition.engine import Alternative, Transcript
from deer_policies.speech.understanding.interpreting import Intent, Meaning
from deer_ros import graph
from deer_ros.nodes import speech_node, voice_goals
from deer_ros.nodes.speech_node import SpeechNode
from tests.ros.node_rig import wait
from tests.ros.voice_rig import LOUD, PIECE, VoiceRig


class Ears:
    """Takes every utterance for what `text` says."""

    def __init__(self):
        self.text = "open the drawer"
        self.failure = None
        self.utterances = 0

    def transcribe(self, samples):
        self.utterances += 1
        if self.failure:
            raise self.failure
        return Transcript((Alternative(self.text, 1.0),), 0.9, "test")


class Mind:
    """Means what `meanings` say."""

    def __init__(self):
        self.meanings = {
            "open the drawer": Meaning(Intent.INSTRUCTION, "open the drawer", ("open_drawer",), 0.9, "drawer, open"),
            "both": Meaning(Intent.INSTRUCTION, "both", ("open_drawer", "close_drawer"), 0.9, "both"),
            "stop": Meaning(Intent.STOP, "stop"),
            "pause": Meaning(Intent.PAUSE, "pause"),
            "go on": Meaning(Intent.RESUME, "go on"),
            "what": Meaning(Intent.QUESTION, "what"),
            "save power": Meaning(Intent.LESS, "save power"),
            "think harder": Meaning(Intent.MORE, "think harder"),
        }
        self.carried_out = []

    def interpret(self, transcript):
        return self.meanings.get(transcript.text, Meaning(Intent.NOTHING, transcript.text))

    def done(self, task):
        self.carried_out.append(task)


class Speech:
    """Speech is what is loud."""

    def probability(self, samples):
        return float(np.abs(samples).max() > 0.5)

    def reset(self):
        pass


class SpeechRig(VoiceRig):
    """A speech node with made-up ears and mind, and a policy that does what it is told."""

    def __init__(self, monkeypatch, **settings):
        self.ears, self.mind = Ears(), Mind()
        self.goals, self.cancelled, self.results = [], [], []
        monkeypatch.setattr(speech_node, "CheckpointJudge", lambda policy: Judge())
        monkeypatch.setattr(speech_node, "make_recogniser", lambda name, sentences: self.ears)
        monkeypatch.setattr(speech_node, "Interpreter", lambda *_: self.mind)
        monkeypatch.setattr(speech_node, "MiniLm", lambda: None)
        monkeypatch.setattr(speech_node, "Silero", Speech)
        super().__init__(SpeechNode, {"listening": "open", **settings})

    def connect(self, node):
        super().connect(node)
        self.outcome = FollowInstruction.Result.DONE
        self.server = ActionServer(
            node,
            FollowInstruction,
            graph.FOLLOW_INSTRUCTION,
            execute_callback=self.execute,
            goal_callback=lambda request: self.goals.append(request.instruction) or GoalResponse.ACCEPT,
            cancel_callback=lambda handle: self.cancelled.append(handle) or CancelResponse.ACCEPT,
        )
        self.release = False

    async def execute(self, handle):
        """Ends when it is released or cancelled; polls as the test's executor comes by."""
        future = Future()

        def look():
            if not future.done() and (self.release or handle.is_cancel_requested):
                future.set_result(None)

        timer = self.client.node.create_timer(0.02, look)
        await future
        self.client.node.destroy_timer(timer)
        if handle.is_cancel_requested:
            handle.canceled()
            return FollowInstruction.Result(outcome=FollowInstruction.Result.CANCELLED, reason="cancelled")
        handle.succeed() if self.outcome == FollowInstruction.Result.DONE else handle.abort()
        return FollowInstruction.Result(outcome=self.outcome, reason="it is stuck")

    def ready(self):
        self.activate()
        wait(lambda: self.sound.get_subscription_count() > 0 and self.node._goals.ready)
        self.armed()
        self.listened()
        wait(lambda: not self.node._deaf() and self.node._state.state == SafetyState.ARMED)

    def armed(self, state=SafetyState.ARMED, reason=""):
        self.safety.publish(SafetyState(state=state, reason=reason))

    def listened(self):
        """Keeps saying that somebody listens for the stop word."""
        self.heartbeat = self.client.node.create_timer(0.1, lambda: self.hearing.publish(Bool(data=True)))

    def say(self, text):
        self.ears.text = text
        before = len(self.received[graph.VOICE_COMMAND])
        for samples in [LOUD] * 15 + [PIECE] * 40:
            self.send(samples)
        wait(lambda: len(self.received[graph.VOICE_COMMAND]) > before)
        return self.last(graph.VOICE_COMMAND)

    @property
    def said(self):
        return [message.data for message in self.received[graph.SAY]]


class Judge:
    """Of two tasks."""

    def __init__(self):
        self.tasks = ("open_drawer", "close_drawer")
        self.examples = {"open_drawer": "please open the drawer", "close_drawer": "please close the drawer"}


@pytest.fixture
def speech_rig(monkeypatch):
    rigs = []

    def make(**settings):
        rigs.append(SpeechRig(monkeypatch, **settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def test_an_order_is_repeated_and_carried_out(speech_rig):
    rig = speech_rig()
    rig.ready()
    command = rig.say("open the drawer")
    assert (command.intent, list(command.tasks)) == (VoiceCommand.INSTRUCTION, ["open_drawer"])
    assert list(command.instructions) == ["please open the drawer"]
    wait(lambda: rig.goals == ["please open the drawer"])
    rig.release = True
    wait(lambda: rig.said == ["drawer, open", "done"])
    assert rig.mind.carried_out == ["open_drawer"]


def test_orders_in_a_row_are_carried_out_in_turn_until_one_fails(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.release = True
    rig.say("both")
    wait(lambda: rig.said[-1:] == ["done"])
    assert rig.goals == ["please open the drawer", "please close the drawer"]
    rig.outcome = FollowInstruction.Result.TIMEOUT
    rig.say("both")
    wait(lambda: rig.said[-1:] == ["I could not do it: drawer, open"])
    assert len(rig.goals) == 3


def paused(rig):
    """The rig, whose drawer is to be opened later."""
    rig.ready()
    rig.say("open the drawer")
    wait(lambda: len(rig.goals) == 1)
    rig.say("pause")
    wait(lambda: rig.cancelled)
    return rig


def test_pausing_and_going_on(speech_rig):
    rig = paused(speech_rig())
    rig.say("go on")
    wait(lambda: len(rig.goals) == 2)
    assert rig.said == ["drawer, open", "pausing", "going on"]


def test_nothing_goes_on_while_nobody_listens(speech_rig):
    rig = paused(speech_rig())
    rig.heartbeat.cancel()
    wait(rig.node._deaf)
    assert "nobody listens" in rig.say("go on").reply
    rig.listened()
    wait(lambda: not rig.node._deaf())
    assert rig.say("go on").reply == "going on"
    wait(lambda: len(rig.goals) == 2)


def test_the_budget_is_said_to_be_what_the_policy_took(speech_rig):
    rig = speech_rig()
    asked = []

    def budget(request, response):
        asked.append(request.average_llm_gmac)
        response.accepted, response.message = len(asked) != 2, "that is too little"
        return response

    rig.client.node.create_service(SetBudget, graph.SET_BUDGET, budget)
    rig.ready()
    wait(rig.node._budget_client.service_is_ready)
    assert "not thought yet" in rig.say("save power").reply
    reports = rig.client.node.create_publisher(ExitReport, graph.EXIT_REPORT, 10)
    wait(lambda: reports.get_subscription_count() > 0)
    reports.publish(ExitReport(full_llm_gmac=2.0))
    wait(lambda: rig.node._full_gmac == 2.0)
    for text, told in (
        ("save power", "saving power"),
        ("save power", "that is too little"),
        ("think harder", "thinking harder"),
    ):
        rig.say(text)
        wait(lambda told=told: rig.said[-1:] == [told])
    assert asked == [pytest.approx(0.8), pytest.approx(0.8), 0.0]


def test_a_simulator_that_does_not_answer_in_time_keeps_nobody_waiting(speech_rig, monkeypatch):
    monkeypatch.setattr(voice_goals, "JUDGE_S", 0.2)
    rig = speech_rig()
    rig.ready()
    answer = Future()
    monkeypatch.setattr(
        rig.node._goals, "_judge", SimpleNamespace(service_is_ready=lambda: True, call_async=lambda _: answer)
    )
    rig.say("open the drawer")
    wait(lambda: len(rig.goals) == 1)
    answer.set_result(BeginSubtask.Response())
    time.sleep(0.4)
    assert len(rig.goals) == 1, "it is sent once"


def test_an_answer_to_what_was_given_up_does_not_end_the_wait_for_the_next(speech_rig, monkeypatch):
    monkeypatch.setattr(voice_goals, "JUDGE_S", 0.3)
    rig = speech_rig()
    rig.ready()
    answers = []
    judge = SimpleNamespace(service_is_ready=lambda: True, call_async=lambda _: answers.append(Future()) or answers[-1])
    monkeypatch.setattr(rig.node._goals, "_judge", judge)
    rig.say("open the drawer")
    rig.say("open the drawer")
    wait(lambda: len(answers) == 2)
    answers[0].set_result(BeginSubtask.Response())
    wait(lambda: len(rig.goals) == 1)
    time.sleep(0.4)
    assert len(rig.goals) == 1, "what was given up is not sent"


def test_the_word_stop_in_a_transcript_stops_as_well(speech_rig):
    rig = speech_rig()
    rig.serve_stop()
    rig.ready()
    rig.say("open the drawer")
    wait(lambda: rig.goals)
    assert rig.say("stop").reply == "holding still"
    wait(lambda: rig.stops >= 1 and rig.cancelled)
    wait(lambda: not rig.node._stop.unanswered)


def test_what_the_safety_node_stops_is_given_up(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.say("both")
    wait(lambda: rig.goals)
    rig.armed(SafetyState.STOPPED, "the e-stop is pressed")
    wait(lambda: rig.cancelled and rig.said[-1] == "holding still")
    assert rig.say("open the drawer").reply == "I am not armed: the e-stop is pressed"
    assert len(rig.goals) == 1


def test_nothing_moves_by_voice_while_nobody_listens_for_the_stop_word(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.say("open the drawer")
    wait(lambda: rig.goals)
    rig.heartbeat.cancel()
    wait(lambda: rig.cancelled)
    assert rig.said[-1] == "I can't hear you any more, so I hold still"
    assert "nobody listens" in rig.say("open the drawer").reply
    assert len(rig.goals) == 1


def test_a_simulator_is_told_which_task_begins(speech_rig):
    rig = speech_rig()
    tasks = []

    def begin(request, response):
        tasks.append((request.task, len(rig.goals)))
        return response

    rig.client.node.create_service(BeginSubtask, graph.BEGIN_SUBTASK, begin)
    rig.ready()
    wait(lambda: rig.node._goals._judge.service_is_ready())
    rig.release = True
    rig.say("both")
    wait(lambda: rig.said[-1:] == ["done"])
    assert tasks == [("open_drawer", 0), ("close_drawer", 1)]


def test_what_is_said_after_its_own_voice_is_listened_to(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.speaking.publish(Bool(data=True))
    wait(lambda: rig.node._speaking)
    rig.speaking.publish(Bool(data=False))
    wait(lambda: not rig.node._speaking)
    time.sleep(0.25)
    assert rig.say("what").intent == VoiceCommand.QUESTION


def test_its_own_voice_is_not_listened_to(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.speaking.publish(Bool(data=True))
    wait(lambda: rig.node._speaking)
    for samples in [LOUD] * 15 + [PIECE] * 40:
        rig.send(samples)
    wait(lambda: rig.node._stream._next == rig.sent)
    assert rig.ears.utterances == 0


def test_push_to_talk_listens_while_the_button_is_pressed(speech_rig):
    rig = speech_rig(listening="push_to_talk")
    rig.ready()
    for samples in [LOUD] * 15 + [PIECE] * 40:
        rig.send(samples)
    wait(lambda: rig.node._stream._next == rig.sent)
    assert rig.ears.utterances == 0
    rig.talk.publish(Bool(data=True))
    wait(lambda: rig.node._talking)
    for samples in [LOUD] * 30:
        rig.send(samples)
    wait(lambda: rig.node._segmenter.speaking)
    rig.talk.publish(Bool(data=False))
    wait(lambda: rig.ears.utterances == 1)
    wait(lambda: rig.received[graph.VOICE_COMMAND])


def test_the_wake_word_tells_what_is_for_the_robot(speech_rig):
    rig = speech_rig(listening="wake_word", wake_word="robot")
    rig.ready()
    assert rig.say("open the drawer").intent == VoiceCommand.NOTHING
    assert rig.say("hey robot open the drawer").intent == VoiceCommand.INSTRUCTION


def test_a_recogniser_that_fails_is_told_and_does_not_end_the_node(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.ears.failure = RuntimeError("out of ears")
    for samples in [LOUD] * 15 + [PIECE] * 40:
        rig.send(samples)
    wait(lambda: "out of ears" in rig.node._recogniser_trouble)
    rig.ears.failure = None
    assert rig.say("what").reply == "I am waiting for an instruction"
