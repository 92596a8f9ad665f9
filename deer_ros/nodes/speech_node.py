"""The speech node: finds utterances, recognises them on a thread of its own, and does what was asked for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from builtin_interfaces.msg import Time
from deer_msgs.msg import AudioChunk, ExitReport, SafetyState, SpeechTranscript, VoiceCommand
from deer_msgs.srv import SetBudget
from rclpy.clock import Clock, ClockType
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Bool, String

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ
from deer_policies.speech.recognition.engine import RECOGNISERS, WHISPER, Recogniser, Transcript, make_recogniser
from deer_policies.speech.recognition.segmenting import Segmenter, SegmentSettings, Silero, Utterance
from deer_policies.speech.understanding.embedding import MiniLm
from deer_policies.speech.understanding.interpreting import Intent, Interpreter, InterpreterSettings, Meaning
from deer_policies.speech.understanding.phrasing import plan_spoken, spoken
from deer_policies.speech.understanding.skill_judge import CheckpointJudge
from deer_ros import graph, parameters
from deer_ros.diagnostics import DiagnosticsPublisher, Health
from deer_ros.inbox import ExecutorInbox
from deer_ros.lifecycle import ManagedNode
from deer_ros.nodes.sound import SoundStream
from deer_ros.nodes.stop_request import StopRequest
from deer_ros.nodes.voice_goals import Order, VoiceGoals
from deer_ros.process import run
from deer_ros.quality import COMMANDS, LATCHED, SOUND
from deer_sim import instructions

PUSH_TO_TALK, WAKE_WORD, OPEN = "push_to_talk", "wake_word", "open"
NO_EMBEDDING, MINILM = "none", "minilm"
EXAMPLES = 20
"""Sentences of each task that a text is compared with."""
DEAF_S = 1.0
"""Nothing moves by voice if nobody has listened for the stop word for so long."""
WATCH_S = 0.1
ECHO_S = 0.2
"""After the robot has spoken, its voice is still in the room for so long."""
INTENTS = {
    Intent.NOTHING: VoiceCommand.NOTHING,
    Intent.INSTRUCTION: VoiceCommand.INSTRUCTION,
    Intent.UNSURE: VoiceCommand.UNSURE,
    Intent.STOP: VoiceCommand.STOP,
    Intent.PAUSE: VoiceCommand.PAUSE,
    Intent.RESUME: VoiceCommand.RESUME,
    Intent.MORE: VoiceCommand.MORE,
    Intent.LESS: VoiceCommand.LESS,
    Intent.QUESTION: VoiceCommand.QUESTION,
}


@dataclass(frozen=True)
class Heard:
    """An utterance that was recognised: what, when, its length and the recogniser's time in s."""

    transcript: Transcript
    stamp: Time
    speech_s: float
    recognition_s: float


class SpeechNode(ManagedNode):
    """Decides when to listen and does what was said; the safety node decides what moves."""

    def __init__(self) -> None:
        super().__init__("speech")
        text, number = parameters.text, parameters.number
        self._listening = text(
            self,
            "listening",
            PUSH_TO_TALK,
            f"{PUSH_TO_TALK}: while {graph.TALK} is true; {WAKE_WORD}: what begins with it; {OPEN}: all",
            (PUSH_TO_TALK, WAKE_WORD, OPEN),
        )
        self._wake_word = text(self, "wake_word", "robot", "word that an utterance begins with")
        self._recogniser_name = text(self, "recogniser", WHISPER, "speech to text", RECOGNISERS)
        self._embedding = text(
            self, "embedding", MINILM, "sentence vectors that a text is compared by", (MINILM, NO_EMBEDDING)
        )
        self._policy = text(self, "policy", "deer-nano", "name or path of the policy whose skills are meant")
        self._saving_share = number(self, "saving_share", 0.4, 0.05, 1.0, "of the language model after 'save power'")
        self._settings = InterpreterSettings(
            accept=number(self, "accept", 0.5, 0.0, 1.0, "least score of an instruction"),
            ask=number(self, "ask", 0.5, 0.0, 1.0, "least score of what the robot asks about"),
            confidence=number(self, "confidence", 0.3, 0.0, 1.0, "least confidence of the recogniser"),
        )
        self._silence_s = number(self, "silence_s", 0.5, 0.1, 3.0, "so much silence ends an utterance")
        self._inbox = ExecutorInbox(self)
        self._stream = SoundStream()
        self._begun = 0
        self._talking = self._speaking = self._own = False
        self._quiet_s = self._hearing_s = -float("inf")
        self._state = SafetyState(state=SafetyState.STOPPED, reason="nothing is heard of the safety node")
        self._full_gmac = 0.0
        self._sound_trouble = self._recogniser_trouble = ""
        self._utterances = self._recognising = 0
        self._worker: ThreadPoolExecutor | None = None
        self._transcripts = self.create_publisher(SpeechTranscript, graph.TRANSCRIPT, COMMANDS)
        self._commands = self.create_publisher(VoiceCommand, graph.VOICE_COMMAND, COMMANDS)
        self._say_publisher = self.create_publisher(String, graph.SAY, COMMANDS)
        self._stop = StopRequest(self)
        self._budget_client: Any = self.create_client(SetBudget, graph.SET_BUDGET)
        self._goals = VoiceGoals(self, self._on_done, self._on_failed)
        self.create_timer(WATCH_S, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        DiagnosticsPublisher(self, self._health)

    def set_up(self) -> None:
        """Loads everything that hears and understands."""
        judge = CheckpointJudge(self._policy)
        examples = {task: example_sentences(task) for task in judge.tasks}
        sentences = [sentence for task in judge.tasks for sentence in examples[task]]
        self._recogniser: Recogniser = make_recogniser(self._recogniser_name, sentences)
        embedder = MiniLm() if self._embedding == MINILM else None
        self._interpreter = Interpreter(judge, embedder, examples, self._settings)
        self._instructions = judge.examples
        self._segmenter = Segmenter(Silero(), SegmentSettings(end_s=self._silence_s))
        for kind, topic, callback, quality in (
            (AudioChunk, graph.AUDIO_INPUT, self._on_sound, SOUND),
            (Bool, graph.TALK, self._on_talk, COMMANDS),
            (Bool, graph.SPEAKING, self._on_speaking, LATCHED),
            (Bool, graph.HEARING, self._on_hearing, LATCHED),
            (SafetyState, graph.SAFETY_STATE, self._on_safety, LATCHED),
            (ExitReport, graph.EXIT_REPORT, self._on_exit_report, qos_profile_sensor_data),
        ):
            subscription = self.create_subscription(kind, topic, callback, quality)
            self._releases.append(partial(self.destroy_subscription, subscription))

    def start(self) -> None:
        """Listens from now on."""
        self._worker = ThreadPoolExecutor(1, "recogniser")

    def halt(self, reason: str) -> None:
        """Gives up what was asked for by voice."""
        self._goals.give_up()
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _on_sound(self, message: AudioChunk) -> None:
        if not self.active:
            return
        try:
            samples = self._stream.push(message)
        except ConfigError as error:
            self._sound_trouble = str(error)
            return
        self._sound_trouble = ""
        if self._begun != self._stream.begun:
            self._begun = self._stream.begun
            self._segmenter = Segmenter(Silero(), self._segmenter.settings)
        speaking = self._segmenter.speaking
        utterances = self._segmenter.push(samples)
        self._listen_to_itself(began=self._segmenter.speaking and not speaking)
        for utterance in utterances:
            self._recognise(utterance)

    def _listen_to_itself(self, began: bool) -> None:
        """Notes whether what is being said now is the robot's own voice, or spoken into it."""
        if self._segmenter.speaking:
            echo = self._speaking or time.monotonic() - self._quiet_s < ECHO_S
            self._own = echo if began else self._own or self._speaking

    def _on_talk(self, message: Bool) -> None:
        """The button: what is being said when it is let go ends there."""
        released = self._talking and not message.data
        self._talking = message.data
        if released and self.active and (utterance := self._segmenter.finish()) is not None:
            self._recognise(utterance, pressed=True)

    def _on_speaking(self, message: Bool) -> None:
        if self._speaking and not message.data:
            self._quiet_s = time.monotonic()
        self._speaking = message.data

    def _on_hearing(self, message: Bool) -> None:
        if message.data:
            self._hearing_s = time.monotonic()

    def _on_safety(self, message: SafetyState) -> None:
        stopped = message.state == SafetyState.STOPPED and self._state.state != SafetyState.STOPPED
        self._state = message
        if stopped and (self._goals.orders or self._goals.held):
            self._goals.give_up()
            self._say("holding still")

    def _on_exit_report(self, message: ExitReport) -> None:
        self._full_gmac = message.full_llm_gmac

    def _watch(self) -> None:
        """Nothing is carried out by voice while nobody could halt it by voice."""
        if self.active and self._goals.orders and self._deaf():
            self._goals.give_up()
            self._say("I can't hear you any more, so I hold still")

    def _deaf(self) -> bool:
        return time.monotonic() - self._hearing_s > DEAF_S

    def _recognise(self, utterance: Utterance, pressed: bool = False) -> None:
        """Hands an utterance that is for the robot to the recogniser's thread."""
        if self._own or (self._listening == PUSH_TO_TALK and not (self._talking or pressed)):
            return
        self._utterances += 1
        self._recognising += 1
        stamp = self.get_clock().now().to_msg()
        assert self._worker is not None
        self._worker.submit(self._transcribe, utterance, stamp)

    def _transcribe(self, utterance: Utterance, stamp: Time) -> None:
        """On the recogniser's thread."""
        began_s = time.monotonic()
        try:
            transcript = self._recogniser.transcribe(utterance.samples)
            meaning = self._interpreter.interpret(self._addressed(transcript))
        except Exception as error:  # a thread must not die with nobody told
            trouble = f"the recogniser failed: {error!r}"
            self._inbox.post(lambda: self._fail(trouble))
            return
        heard = Heard(transcript, stamp, len(utterance.samples) / RATE_HZ, time.monotonic() - began_s)
        self._inbox.post(lambda: self._take(heard, meaning))

    def _addressed(self, transcript: Transcript) -> Transcript:
        """Without the wake word, and nothing at all if it should begin with it and does not."""
        if self._listening != WAKE_WORD:
            return transcript
        begin = f"{self._wake_word} "
        words = [each.text.removeprefix("hey ").removeprefix("okay ") for each in transcript.alternatives]
        if not words or not words[0].startswith(begin):
            return replace(transcript, alternatives=())
        kept = [
            replace(each, text=text.removeprefix(begin))
            for each, text in zip(transcript.alternatives, words, strict=True)
        ]
        return replace(transcript, alternatives=tuple(kept))

    def _fail(self, trouble: str) -> None:
        self._recognising -= 1
        self._recogniser_trouble = trouble
        self.get_logger().error(trouble)

    def _take(self, heard: Heard, meaning: Meaning) -> None:
        """What was said, on the executor's thread."""
        self._recognising -= 1
        self._recogniser_trouble = ""
        if not self.active:
            return
        message = SpeechTranscript(
            alternatives=[each.text for each in heard.transcript.alternatives],
            probabilities=[each.probability for each in heard.transcript.alternatives],
            confidence=heard.transcript.confidence,
            engine=heard.transcript.engine,
            speech_s=heard.speech_s,
            recognition_s=heard.recognition_s,
        )
        message.header.stamp = heard.stamp
        self._transcripts.publish(message)
        reply = self._do(meaning)
        command = VoiceCommand(
            intent=INTENTS[meaning.intent],
            text=meaning.text,
            tasks=list(meaning.tasks),
            instructions=[self._instructions[task] for task in meaning.tasks if meaning.intent is Intent.INSTRUCTION],
            score=float(meaning.score),
            reply=reply,
        )
        command.header.stamp = heard.stamp
        self._commands.publish(command)
        self._say(reply)

    def _do(self, meaning: Meaning) -> str:
        """Does what is wanted and returns what is said to it."""
        match meaning.intent:
            case Intent.STOP:
                self._stop.ask()
                self._goals.give_up()
                return "" if self._state.state == SafetyState.STOPPED else "holding still"
            case Intent.PAUSE:
                return "pausing" if self._goals.pause() else "nothing is under way"
            case Intent.RESUME:
                return self._resume()
            case Intent.MORE | Intent.LESS:
                return self._set_budget(saving=meaning.intent is Intent.LESS)
            case Intent.QUESTION:
                return self._status()
            case Intent.INSTRUCTION:
                return self._begin(meaning)
            case Intent.UNSURE:
                return meaning.reply
        pressed = self._listening == PUSH_TO_TALK and meaning.text
        return "I did not understand; say for example: open the drawer" if pressed else ""

    def _hindrance(self) -> str:
        """Why nothing may begin now, in words."""
        if self._state.state == SafetyState.STOPPED:
            return f"I am not armed: {self._state.reason}"
        if self._deaf():
            return "I can't do that while nobody listens for the word that halts me"
        return "" if self._goals.ready else "my policy is not running"

    def _begin(self, meaning: Meaning) -> str:
        if hindrance := self._hindrance():
            return hindrance
        self._goals.begin([Order(task, self._instructions[task]) for task in meaning.tasks])
        return meaning.reply

    def _resume(self) -> str:
        if not self._goals.held:
            return "there is nothing to go on with"
        if hindrance := self._hindrance():
            return hindrance
        self._goals.resume()
        return "going on"

    def _set_budget(self, saving: bool) -> str:
        """Asks the policy node, and says what it answers when it does."""
        if not self._budget_client.service_is_ready():
            return "my policy is not running"
        if saving and not self._full_gmac:
            return "I have not thought yet, so I can't tell how much to save"
        share = self._full_gmac * self._saving_share if saving else 0.0
        told = "saving power" if saving else "thinking harder"
        asked = self._budget_client.call_async(SetBudget.Request(average_llm_gmac=share))
        asked.add_done_callback(lambda future: self._say(told if future.result().accepted else future.result().message))
        return ""

    def _status(self) -> str:
        """What the robot is about, to any question: it can't see an answer to more."""
        if self._goals.orders:
            return f"I am at: {plan_spoken([order.task for order in self._goals.orders])}"
        if self._goals.held:
            return f"I am pausing: {plan_spoken([order.task for order in self._goals.held])}"
        if self._state.state == SafetyState.STOPPED:
            return f"I am not armed: {self._state.reason}"
        return "I am waiting for an instruction"

    def _on_done(self, order: Order, left: int) -> None:
        self._interpreter.done(order.task)
        if not left:
            self._say("done")

    def _on_failed(self, order: Order, reason: str) -> None:
        self.get_logger().warning(f"{order.task}: {reason}")
        self._say(f"I could not do it: {spoken(order.task)}")

    def _say(self, sentence: str) -> None:
        if sentence:
            self._say_publisher.publish(String(data=sentence))

    def _health(self) -> Health:
        deaf = "nobody listens for the stop word" if self.active and self._deaf() else ""
        values = {
            "listening": self._listening,
            "utterances": self._utterances,
            "being recognised": self._recognising,
            "threads": threading.active_count(),
            "orders": len(self._goals.orders),
        }
        return Health(self._sound_trouble or self._recogniser_trouble or deaf, False, values)


def example_sentences(task: str) -> list[str]:
    """Sentences that ask for a task, spread over all ways of asking that the policy has learned."""
    known = instructions.plain_training(task)
    return [instructions.example(task), *instructions.bare(task)[:EXAMPLES], *known[:: max(1, len(known) // EXAMPLES)]]


def main() -> int:
    """Runs the node as a process."""
    return run(SpeechNode)


if __name__ == "__main__":
    raise SystemExit(main())
