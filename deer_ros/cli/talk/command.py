"""The subcommand `deer talk`: starts simulation and voice, says the script's lines, and writes sound and page."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_policies.speech.audio import RATE_HZ
from deer_ros.cli.talk.script import ANSWER, DECLINED, INSTRUCTION, QUESTION_BACK, SCRIPT, STOP, Line

HELP = "talk to the robot in simulation, over ROS 2: orders, a question, a stop; writes sound and a report"
REPLY_S, TASK_S, FIRST_MOTION_S = 12.0, 90.0, 20.0
"""How long an answer, a task, and the beginning of its motion may take."""
STOP_WATCHED_S = 2.0


@dataclass
class Outcome:
    """What became of a line; times in s since the sound began.

    Attributes:
        line: that was said.
        voice: who said it.
        from_s, to_s: when.
        transcript: how it was understood, '' if not at all.
        confidence: of that.
        intent, tasks, reply: what it was taken for, and what the robot said.
        command_s: from the end of speech to the command.
        stop_s: from the end of the word to its recognition, to the safety node's stop, and to the tool's standstill.
        done: whether what was expected came about.
        why: what came instead.
    """

    line: Line
    voice: str
    from_s: float
    to_s: float
    transcript: str = ""
    confidence: float = 0.0
    intent: str = ""
    tasks: tuple[str, ...] = ()
    reply: str = ""
    command_s: float | None = None
    stop_s: dict[str, float] = field(default_factory=dict)
    done: bool = False
    why: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--engine", default="pico", help="speech engine that talks to the robot")
    parser.add_argument("--voice", default="", help="a voice of it (default: its first)")
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy or path of a checkpoint")
    parser.add_argument("--recogniser", default="whisper", help="of the robot: whisper or grammar")
    parser.add_argument("--embedding", default="minilm", help="of the robot: minilm or none")
    parser.add_argument("--scene", default="D", help="PlayTable scene: A, B, C or D")
    parser.add_argument("--seed", type=int, default=0, help="of the table and the room's noise")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder in which the run gets its own")


def run(arguments: argparse.Namespace) -> int:
    """Runs the demonstration. Returns 0 if every line was taken as it should be."""
    from deer_policies.speech.audio import trimmed
    from deer_policies.speech.synthesis.engine import make_synthesiser

    synthesiser = make_synthesiser(arguments.engine)
    voice = arguments.voice or synthesiser.voices[0]
    if voice not in synthesiser.voices:
        raise ConfigError(f"{arguments.engine} has no voice {voice!r}; it has {', '.join(synthesiser.voices)}")
    lines = [(line, trimmed(synthesiser.say(line.text, voice))) for line in SCRIPT]
    folder = arguments.out / datetime.now().astimezone().strftime("talk-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"starting simulator, safety, policy and voice nodes; their logs are in {folder / 'logs'}", flush=True)
    report = _perform(arguments, lines, f"{arguments.engine}/{voice}", folder)
    outcomes = report["lines"]
    done = sum(outcome["done"] for outcome in outcomes)
    print(f"{done} of {len(SCRIPT)} lines were taken as they should be; see {folder / 'talk.html'}")
    return 0 if done == len(SCRIPT) else 1


def _perform(arguments: argparse.Namespace, lines: list[tuple[Line, Any]], voice: str, folder: Path) -> dict[str, Any]:
    from deer_ros.bringup import Stack, StackConfig
    from deer_ros.cli.talk.mouth import Mouth
    from deer_ros.cli.talk.page import write
    from deer_ros.cli.talk.witness import Witness

    policy = {"policy": arguments.policy}
    simulation = StackConfig(
        "simulation",
        overrides={"simulator": {"scene": arguments.scene, "seed": arguments.seed}, "policy": policy},
        log_folder=folder / "logs",
    )
    with Stack(simulation) as stack:
        speech = {
            "listening": "open",
            "recogniser": arguments.recogniser,
            "embedding": arguments.embedding,
            **policy,
        }
        ears = StackConfig(
            "voice",
            overrides={"speech": speech, "voice": {"output": "topic"}},
            domain_id=stack.domain_id,
            log_folder=folder / "logs",
            leave_out=("microphone",),
            respawn=True,
        )
        with Stack(ears) as voices:
            witness = Witness()
            witness.listen(stack.client)
            stack.client.reset(arguments.seed)
            mouth = Mouth(stack.client.node, arguments.seed)
            outcomes: list[Outcome] = []
            cores: dict[str, float] = {}
            try:
                time.sleep(1.5)
                began_s, used_s = time.monotonic(), {**stack.cpu_s(), **voices.cpu_s()}
                stage = _Stage(stack.client, mouth, witness, voice)
                for line, samples in lines:
                    outcomes.append(stage.play(line, samples))
                    _tell(outcomes[-1])
                time.sleep(1.0)
                cores = _cores({**stack.cpu_s(), **voices.cpu_s()}, used_s, time.monotonic() - began_s)
            finally:
                mouth.close()
                report = {
                    "voice": voice,
                    "command": arguments.command_line,
                    "lines": [asdict(each) for each in outcomes],
                    "cores": cores,
                }
                (folder / "talk.json").write_text(json.dumps(report, indent=1) + "\n")
                write(folder, report, mouth, witness)
            return report


def _cores(cpu_s: dict[str, float], before_s: dict[str, float], seconds: float) -> dict[str, float]:
    """Cores that each node has kept busy, on average; a node that was started anew is left out."""
    taken_s = {name: cpu_s[name] - before_s[name] for name in cpu_s if name in before_s}
    return {name: round(value / seconds, 3) for name, value in taken_s.items() if value >= 0}


class _Stage:
    """Says lines and watches what comes of them."""

    def __init__(self, client: Any, mouth: Any, witness: Any, voice: str) -> None:
        self._client, self._mouth, self._witness, self._voice = client, mouth, witness, voice

    def play(self, line: Line, samples: Any) -> Outcome:
        """Says a line when it is its turn, and waits for what comes of it."""
        witness, began_s = self._witness, self._mouth.began_s
        if line.after_motion_s is None:
            # All that the robot had to say has been said.
            self._until(lambda: witness.spoken >= len(witness.said) and not witness.speaking, REPLY_S)
            time.sleep(0.6)
        else:
            from_s = time.monotonic()
            self._until(lambda: witness.moved_m(from_s) > 0.01, FIRST_MOTION_S)
            time.sleep(line.after_motion_s)
        heard, stopped = len(witness.commands), len(witness.stops)
        end_s = self._mouth.say(samples)
        outcome = Outcome(line, self._voice, end_s - len(samples) / RATE_HZ - began_s, end_s - began_s)
        if line.expected == STOP:
            return self._stop(outcome, end_s, stopped)
        if not self._until(lambda: len(witness.commands) > heard, REPLY_S + len(samples) / RATE_HZ):
            outcome.why = "no command came of it"
            return outcome
        at_s, command = witness.commands[heard]
        transcript = witness.transcripts[-1][1]
        outcome.transcript = transcript.alternatives[0] if transcript.alternatives else ""
        outcome.confidence = transcript.confidence
        outcome.intent = _intent(command)
        outcome.tasks, outcome.reply, outcome.command_s = tuple(command.tasks), command.reply, at_s - end_s
        return self._judged(outcome)

    def _judged(self, outcome: Outcome) -> Outcome:
        line, taken = outcome.line, outcome.intent
        wanted = {INSTRUCTION: "INSTRUCTION", QUESTION_BACK: "UNSURE", ANSWER: "QUESTION", DECLINED: "NOTHING"}
        if taken != wanted[line.expected]:
            outcome.why = f"taken for {taken}"
        elif line.task and line.task not in outcome.tasks:
            outcome.why = f"taken for {', '.join(outcome.tasks)}"
        elif line.task:
            said = len(self._witness.said)
            ended = ("done", "I could not")
            found = self._until(
                lambda: any(sentence.startswith(ended) for _, sentence in self._witness.said[said:]), TASK_S
            )
            last = self._witness.said[-1][1] if found else "the time was up"
            outcome.done, outcome.why = last == "done", "" if last == "done" else last
        else:
            outcome.done = True
        return outcome

    def _stop(self, outcome: Outcome, end_s: float, stopped: int) -> Outcome:
        """A stop counts if it came before the tool had finished by itself; the robot is armed again after it."""
        witness, from_s = self._witness, time.monotonic()
        self._until(lambda: len(witness.stops) > stopped and witness.states[-1][1] == "STOPPED", REPLY_S)
        time.sleep(STOP_WATCHED_S)
        outcome.intent = "STOP"
        states = [at_s for at_s, name, _ in witness.states if name == "STOPPED" and at_s > from_s]
        moved = witness.moved_m(from_s - 1.0)
        if len(witness.stops) > stopped and states:
            stands_s = witness.stands_from(end_s - 1.0)
            outcome.stop_s = {
                "heard": witness.stops[stopped][0] - end_s,
                "stopped": states[0] - end_s,
                "stands": (stands_s or end_s) - end_s,
            }
            outcome.done = moved > 0.01
            outcome.why = "" if outcome.done else "the tool was not moving"
        else:
            outcome.why = "it was not heard"
        self._client.arm()
        return outcome

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self._client.check()
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.02)
        return True


def _intent(command: Any) -> str:
    names = ("NOTHING", "INSTRUCTION", "UNSURE", "STOP", "PAUSE", "RESUME", "MORE", "LESS", "QUESTION")
    return next(name for name in names if getattr(type(command), name) == command.intent)


def _tell(outcome: Outcome) -> None:
    took = f" after {outcome.command_s:.2f} s" if outcome.command_s is not None else ""
    stop = ", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in outcome.stop_s.items())
    print(
        f"“{outcome.line.text}”: {outcome.intent or 'nothing'}{took}{stop and f' ({stop} after the word)'}", flush=True
    )
    if outcome.transcript:
        print(f"    heard “{outcome.transcript}” ({outcome.confidence:.2f}), answered “{outcome.reply}”", flush=True)
    print(f"    {'as it should be' if outcome.done else f'NOT as it should be: {outcome.why}'}", flush=True)
