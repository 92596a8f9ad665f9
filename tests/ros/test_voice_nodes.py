"""The nodes that hear and speak, one at a time over ROS, with made-up networks and engines in them."""

import time

import numpy as np
import pytest
from deer_msgs.action import FollowInstruction
from deer_msgs.msg import AudioChunk, SafetyState, StopWord, VoiceCommand
from deer_msgs.srv import BeginSubtask
from lifecycle_msgs.msg import Transition
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from deer_policies.speech.audio import RATE_HZ, write_wav
from deer_policies.speech.recognition.engine import Alternative, Transcript
from deer_policies.speech.spotting.spotter import Stop
from deer_policies.speech.understanding.interpreting import Intent, Meaning
from deer_ros import graph
from deer_ros.errors import StackError
from deer_ros.nodes import microphone_node, port_audio, speech_node, stop_word_node, voice_node
from deer_ros.nodes.microphone_node import MicrophoneNode
from deer_ros.nodes.sound import SoundStream, chunk_message
from deer_ros.nodes.speech_node import SpeechNode
from deer_ros.nodes.stop_word_node import StopWordNode
from deer_ros.nodes.voice_node import VoiceNode
from deer_ros.quality import COMMANDS, LATCHED, SOUND
from tests.ros.node_rig import NodeRig, wait

PIECE = np.full(320, 0.1, np.float32)
LOUD = np.full(320, 0.9, np.float32)


class LoudSpotter:
    """Takes anything loud for the stop word."""

    def __init__(self):
        self.resets = 0

    def reset(self):
        self.resets += 1

    def push(self, samples):
        return Stop(0.0, 0.9) if np.abs(samples).max(initial=0) > 0.5 else None


class VoiceRig(NodeRig):
    """Sends sound, and keeps what comes back."""

    def connect(self, node):
        self.received = {topic: [] for topic in (graph.STOP_WORD, graph.HEARING, graph.SAY, graph.VOICE_COMMAND)}
        kinds = {graph.STOP_WORD: StopWord, graph.HEARING: Bool, graph.SAY: String, graph.VOICE_COMMAND: VoiceCommand}
        for topic, kind in kinds.items():
            quality = LATCHED if kind is Bool else COMMANDS
            node.create_subscription(kind, topic, self.received[topic].append, quality)
        self.sound = node.create_publisher(AudioChunk, graph.AUDIO_INPUT, SOUND)
        self.hearing = node.create_publisher(Bool, graph.HEARING, LATCHED)
        self.talk = node.create_publisher(Bool, graph.TALK, COMMANDS)
        self.speaking = node.create_publisher(Bool, graph.SPEAKING, LATCHED)
        self.safety = node.create_publisher(SafetyState, graph.SAFETY_STATE, LATCHED)
        self.stops = 0
        self.sent = 0

    def serve_stop(self, answers=True):
        def stop(request, response):
            self.stops += 1
            if not answers:
                time.sleep(0.3)
            response.success = True
            return response

        return self.client.node.create_service(Trigger, graph.SAFETY_STOP, stop)

    def send(self, samples, skip=0):
        self.sent += skip
        self.sound.publish(chunk_message(samples, self.sent, self.client.node.get_clock().now().to_msg()))
        self.sent += len(samples)

    def last(self, topic):
        return self.received[topic][-1] if self.received[topic] else None


@pytest.fixture
def make_rig():
    rigs = []

    def make(kind, **settings):
        rigs.append(VoiceRig(kind, settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def stop_rig(make_rig, monkeypatch):
    spotter = LoudSpotter()
    monkeypatch.setattr(stop_word_node.Spotter, "load", lambda path, threshold: spotter)
    rig = make_rig(StopWordNode)
    rig.spotter = spotter
    return rig


def test_the_stop_word_reaches_the_safety_node(stop_rig):
    stop_rig.serve_stop()
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    for _ in range(5):
        stop_rig.send(PIECE)
    wait(lambda: stop_rig.last(graph.HEARING) is not None and stop_rig.last(graph.HEARING).data)
    assert stop_rig.stops == 0
    began_s = time.monotonic()
    stop_rig.send(LOUD)
    wait(lambda: stop_rig.stops == 1)
    assert time.monotonic() - began_s < 0.3
    wait(lambda: stop_rig.received[graph.STOP_WORD])
    assert stop_rig.last(graph.STOP_WORD).sample == stop_rig.sent


def test_a_stop_is_sent_again_until_it_is_answered(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.send(PIECE)
    stop_rig.send(LOUD)
    wait(lambda: stop_rig.received[graph.STOP_WORD])
    time.sleep(0.3)
    stop_rig.serve_stop()
    wait(lambda: stop_rig.stops >= 1)
    time.sleep(0.3)
    stops = stop_rig.stops
    time.sleep(0.3)
    assert stop_rig.stops == stops, "once answered, it is not sent again"


def test_without_sound_nobody_is_said_to_listen(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.send(PIECE)
    wait(lambda: stop_rig.last(graph.HEARING) is not None and stop_rig.last(graph.HEARING).data)
    wait(lambda: not stop_rig.last(graph.HEARING).data)


def test_a_gap_is_silence_and_a_restart_a_new_beginning(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.send(PIECE)
    wait(lambda: stop_rig.spotter.resets == 1)
    stop_rig.send(PIECE, skip=640)
    stop_rig.sent = 0
    stop_rig.send(PIECE)
    wait(lambda: stop_rig.spotter.resets == 2)
    assert stop_rig.node._stream.lost == 640


def test_sound_of_another_rate_is_an_error_that_says_so(stop_rig):
    stop_rig.activate()
    wait(lambda: stop_rig.sound.get_subscription_count() > 0)
    stop_rig.sound.publish(AudioChunk(sample_rate_hz=44100, samples=[0] * 100))
    wait(lambda: "44100 Hz; it must have 16000" in stop_rig.node._trouble)


def test_a_stream_joins_pieces():
    stream, now = SoundStream(), AudioChunk().header.stamp
    assert len(stream.push(chunk_message(PIECE, 100, now))) == 320
    assert len(stream.push(chunk_message(PIECE, 420, now))) == 320
    joined = stream.push(chunk_message(PIECE, 1000, now))
    assert (joined[:260] == 0).all()
    assert len(joined) == 580
    assert (stream.begun, stream.lost) == (1, 260)
    assert len(stream.push(chunk_message(PIECE, 10 * RATE_HZ, now))) == 320
    assert stream.begun == 2


def test_a_file_is_played_as_if_it_were_heard(make_rig, tmp_path):
    samples = np.sin(np.arange(RATE_HZ // 2) / 5).astype(np.float32) * 0.5
    write_wav(tmp_path / "said.wav", samples)
    rig = make_rig(MicrophoneNode, source="file", file=str(tmp_path / "said.wav"))
    pieces = []
    rig.client.node.create_subscription(AudioChunk, graph.AUDIO_INPUT, pieces.append, SOUND)
    wait(lambda: rig.node._publisher.get_subscription_count() > 0)
    rig.change(Transition.TRANSITION_CONFIGURE)
    began_s = time.monotonic()
    rig.change(Transition.TRANSITION_ACTIVATE)
    wait(lambda: len(pieces) * 320 > len(samples) + 1600)
    assert time.monotonic() - began_s > 0.5
    heard = np.concatenate([np.asarray(piece.samples) for piece in pieces]) / 32768
    np.testing.assert_allclose(heard[: len(samples)], samples, atol=1e-4)
    assert (heard[len(samples) :] == 0).all(), "then silence"


def test_a_file_or_a_device_that_is_not_there_is_told(make_rig, monkeypatch, capfd):
    with pytest.raises(StackError, match="refused"):
        make_rig(MicrophoneNode, source="file", file="/no/such.wav").change(Transition.TRANSITION_CONFIGURE)
    assert "can't be read as sound" in capfd.readouterr().err


def test_a_machine_without_a_microphone_is_told(make_rig, monkeypatch, capfd):
    class Silent:
        PortAudioError = RuntimeError

        def __getattr__(self, name):
            raise RuntimeError(f"Error querying device -1 for {name}")

    monkeypatch.setattr(port_audio, "library", Silent)
    monkeypatch.setattr(microphone_node, "library", Silent)
    rig = make_rig(MicrophoneNode)
    rig.change(Transition.TRANSITION_CONFIGURE)
    with pytest.raises(StackError, match="refused"):
        rig.change(Transition.TRANSITION_ACTIVATE)
    assert "source: file needs none" in capfd.readouterr().err


class Engine:
    """Says a tenth of a second for each word."""

    voices = ("one",)

    def say(self, text, voice, speed=1.0):
        return np.full(int(0.1 * RATE_HZ) * len(text.split()), 0.5, np.float32)


def test_sentences_are_said_one_after_the_other(make_rig, monkeypatch):
    monkeypatch.setattr(voice_node, "make_synthesiser", lambda name: Engine())
    rig = make_rig(VoiceNode, output="topic")
    pieces, speaking = [], []
    rig.client.node.create_subscription(AudioChunk, graph.AUDIO_OUTPUT, pieces.append, SOUND)
    rig.client.node.create_subscription(Bool, graph.SPEAKING, lambda message: speaking.append(message.data), LATCHED)
    say = rig.client.node.create_publisher(String, graph.SAY, COMMANDS)
    rig.activate()
    wait(lambda: say.get_subscription_count() > 0 and rig.node._publisher.get_subscription_count() > 0)
    for number in range(8):
        say.publish(String(data=f"sentence {number}"))
    wait(lambda: speaking and not speaking[-1] and rig.node._waiting.empty() and rig.node._said >= 3)
    total = sum(len(piece.samples) for piece in pieces)
    assert total == rig.node._said * 3200
    assert rig.node._said + rig.node._dropped == 8
    assert rig.node._dropped >= 3, "nobody waits for old sentences"
    assert True in speaking


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
        from rclpy.task import Future

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


def test_pausing_and_going_on(speech_rig):
    rig = speech_rig()
    rig.ready()
    rig.say("open the drawer")
    wait(lambda: len(rig.goals) == 1)
    rig.say("pause")
    wait(lambda: rig.cancelled)
    rig.say("go on")
    wait(lambda: len(rig.goals) == 2)
    assert rig.said == ["drawer, open", "pausing", "going on"]


def test_the_word_stop_in_a_transcript_stops_as_well(speech_rig):
    rig = speech_rig()
    rig.serve_stop()
    rig.ready()
    rig.say("open the drawer")
    wait(lambda: rig.goals)
    rig.say("stop")
    wait(lambda: rig.stops == 1 and rig.cancelled)


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
