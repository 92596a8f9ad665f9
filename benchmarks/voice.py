"""Measures hearing and understanding: word errors, commands right and wrong, what is out of scope, and time.

Run: python benchmarks/voice.py [--recognisers whisper grammar] [--tuning]

Sentences that nothing was trained on are said by voices that nothing was tuned on (with --tuning: by the others, to
choose thresholds with), in rooms and with noise. Speech and transcripts are kept in --work; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.model_store.store import ModelStore
from deer_policies.speech.audio import RATE_HZ, read_wav, trimmed, write_wav
from deer_policies.speech.recognition.engine import Alternative, Recogniser, Transcript, make_recogniser
from deer_policies.speech.recognition.segmenting import Segmenter, SegmentSettings, Silero
from deer_policies.speech.recognition.words import word_errors
from deer_policies.speech.spotting.corpus import OTHER_KIND, voices
from deer_policies.speech.spotting.measurement import CONDITIONS, heard
from deer_policies.speech.spotting.recordings import TEST, read_recordings
from deer_policies.speech.synthesis.engine import make_synthesiser
from deer_policies.speech.understanding.embedding import MiniLm
from deer_policies.speech.understanding.interpreting import Intent, Interpreter, InterpreterSettings
from deer_policies.speech.understanding.skill_judge import CheckpointJudge
from deer_ros.cli.provenance import commit
from deer_ros.nodes.speech_node import example_sentences
from deer_sim import instructions, outside
from deer_sim.tasks import TASKS
from voice_scoring import Scored, described, sweep, table

OTHER_LANGUAGES = (
    ("de-DE", "könntest du bitte das Fenster schließen"),
    ("de-DE", "der rote Klotz gehört mir"),
    ("es-ES", "abre la ventana por favor"),
    ("es-ES", "el bloque azul es muy bonito"),
    ("fr-FR", "ouvre le tiroir s'il te plaît"),
    ("fr-FR", "je voudrais un café"),
    ("it-IT", "accendi la luce verde"),
    ("it-IT", "spingi il blocco rosso a sinistra"),
)
LEAD_S, TAIL_S = 0.7, 0.9


@dataclass(frozen=True)
class Item:
    """Something that is said: the text, by whom, and the task it asks for, '' for none."""

    text: str
    engine: str
    voice: str
    task: str

    @property
    def file(self) -> str:
        return hashlib.sha256(f"{self.engine}/{self.voice}/{self.text}".encode()).hexdigest()[:20] + ".wav"


def items(tuning: bool, seed: int, commands: int, others: int) -> list[Item]:
    """What is said, and by whom."""
    random = np.random.default_rng([seed, tuning])
    speakers = voices(test=not tuning)

    def by_somebody(text: str, task: str) -> Item:
        return Item(text, *speakers[random.integers(len(speakers))], task)

    found = []
    for task in TASKS:
        known = instructions.bare(task) if tuning else instructions.validation(task, instructions.WRITTEN)
        found += [by_somebody(known[random.integers(len(known))], task) for _ in range(commands)]
    beyond = outside.tuning() if tuning else [text for group in outside.GROUPS for text in outside.validation(group)]
    short = [text for text in beyond if 2 <= len(text.split()) <= 14]
    found += [by_somebody(short[at], "") for at in random.choice(len(short), others, replace=False)]
    if not tuning:
        found += [Item(text, "pico", voice, "") for voice, text in OTHER_LANGUAGES]
    return found


def spoken(item: Item, folder: Path, engines: dict[str, Any]) -> np.ndarray:
    """Its sound, made once."""
    path = folder / item.file
    if not path.is_file():
        if item.engine not in engines:
            engines[item.engine] = make_synthesiser(item.engine)
        write_wav(path, trimmed(engines[item.engine].say(item.text, item.voice)) * 0.8)
    return read_wav(path)


def as_heard(sound: np.ndarray, ratio_db: float | None, seed: Sequence[int], speech: list[np.ndarray]) -> np.ndarray:
    """In a room, with noise, with time before and after it."""
    silence = [np.zeros(int(seconds * RATE_HZ), np.float32) for seconds in (LEAD_S, TAIL_S)]
    return heard(np.concatenate([silence[0], sound, silence[1]]), ratio_db, np.random.default_rng(seed), speech)


def utterance(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """What voice activity makes of it, and how long after the end of speech it is known; all of it if it finds none."""
    segmenter = Segmenter(Silero(), SegmentSettings())
    for start in range(0, len(samples), 320):
        for found in segmenter.push(samples[start : start + 320]):
            return found.samples, (start + 320) / RATE_HZ
    rest = segmenter.finish()
    return (samples if rest is None else rest.samples), len(samples) / RATE_HZ


def transcribed(
    said: Sequence[Item], recogniser_name: str, work: Path, seed: int, tell: Callable[[str], None]
) -> Iterator[tuple[Item, str, Transcript, dict[str, float]]]:
    """Each item in each condition with its transcript and the time that it took."""
    cache = work / f"{recogniser_name}.jsonl"
    known = {line["key"]: line for line in map(json.loads, cache.read_text().splitlines())} if cache.is_file() else {}
    engines: dict[str, Any] = {}
    sounds = {}
    for number, item in enumerate(said):
        sounds[item] = spoken(item, work / "speech", engines)
        if number % 50 == 0:
            tell(f"{number} of {len(said)} sentences spoken")
    speech = list(sounds.values())
    sentences = [text for task in TASKS for text in example_sentences(task)]
    recogniser = make_recogniser(recogniser_name, sentences)
    with cache.open("a") as file:
        for condition, ratio_db in CONDITIONS:
            tell(f"{recogniser_name}, {condition}")
            for number, item in enumerate(said):
                key = f"{condition}/{seed}/{item.file}"
                if key not in known:
                    samples = as_heard(sounds[item], ratio_db, (seed, number), speech)
                    said_samples, known_s = utterance(samples)
                    began_s, cpu_s = time.monotonic(), time.process_time()
                    found = recogniser.transcribe(said_samples)
                    times = {
                        "wall_s": time.monotonic() - began_s,
                        "cpu_s": time.process_time() - cpu_s,
                        "known_s": known_s - LEAD_S - len(sounds[item]) / RATE_HZ,
                    }
                    alternatives = [[each.text, each.probability] for each in found.alternatives]
                    line = {"key": key, "alternatives": alternatives, "confidence": found.confidence, "times": times}
                    known[key] = line
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                line = known[key]
                alternatives = tuple(Alternative(*each) for each in line["alternatives"])
                yield item, condition, Transcript(alternatives, line["confidence"], recogniser_name), line["times"]


def scored(
    interpreter: Interpreter, item: Item, condition: str, transcript: Transcript, times: dict[str, float]
) -> Scored:
    """What the interpreter makes of a transcript, against what was meant."""
    interpreter.asked, interpreter.lifted = (), ""
    began_s = time.monotonic()
    meaning = interpreter.interpret(transcript)
    understood_s = time.monotonic() - began_s
    errors, words = word_errors(item.text, transcript.text)
    delay_s = times["known_s"] + times["wall_s"] + understood_s
    return Scored(
        item.text, item.task, f"{item.engine}/{item.voice}", condition, transcript.text, meaning, errors, words, delay_s
    )


class ReadOnce:
    """A judge and an embedder that read each text once, however many thresholds are tried."""

    def __init__(self, judge: CheckpointJudge, embedder: MiniLm) -> None:
        self._judge, self._embedder = judge, embedder
        self.tasks = judge.tasks
        self._judged: dict[str, np.ndarray] = {}
        self._embedded: dict[str, np.ndarray] = {}

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """See `SkillJudge`."""
        return _of_each(texts, self._judged, self._judge.probabilities)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder`."""
        return _of_each(texts, self._embedded, self._embedder.embed)


def _of_each(
    texts: Sequence[str], known: dict[str, np.ndarray], read: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    fresh = [text for text in dict.fromkeys(texts) if text not in known]
    if fresh:
        known.update(zip(fresh, np.asarray(read(fresh)), strict=True))
    return np.stack([known[text] for text in texts])


def rescored(interpreter: Interpreter, heard_items: Sequence[Any], settings: InterpreterSettings) -> list[Scored]:
    """The same transcripts with other thresholds."""
    interpreter.settings = settings
    return [scored(interpreter, *each) for each in heard_items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recognisers", nargs="+", default=["whisper", "grammar"], help="speech to text")
    parser.add_argument("--tuning", action="store_true", help="voices and sentences to choose thresholds with")
    parser.add_argument("--policy", default="deer-nano", help="whose skills are meant")
    parser.add_argument("--seed", type=int, default=0, help="of rooms, noises and who says what")
    parser.add_argument("--commands", type=int, default=4, help="sentences for each of the 34 tasks")
    parser.add_argument("--outside", type=int, default=60, help="sentences that ask for none of them")
    parser.add_argument("--work", type=Path, default=Path(".cache/voice"), help="folder for speech and transcripts")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="folders of people's recordings too")
    parser.add_argument("--out", type=Path, default=Path("runs/voice.json"), help="all of it")
    arguments = parser.parse_args()
    work = arguments.work / ("tuning" if arguments.tuning else "test")
    said = items(arguments.tuning, arguments.seed, arguments.commands, arguments.outside)
    reader = ReadOnce(CheckpointJudge(arguments.policy), MiniLm())
    examples = {task: example_sentences(task) for task in reader.tasks}
    found: dict[str, Any] = {"commit": commit(), "seed": arguments.seed, "tuning": arguments.tuning}
    for name in arguments.recognisers:
        heard_items = list(transcribed(said, name, work, arguments.seed, lambda text: print(text, flush=True)))
        interpreter = Interpreter(reader, reader, examples)
        results = [scored(interpreter, *each) for each in heard_items]
        print(f"\n{name}\n\n{table(results)}\n")
        if arguments.tuning:
            print(sweep(partial(rescored, interpreter, heard_items)))
        cpu = [each[3]["cpu_s"] for each in heard_items]
        found[name] = {"scores": described(results), "cpu_s": float(np.mean(cpu))}
        print(f"CPU of the recogniser for an utterance: {1e3 * np.mean(cpu):.0f} ms")
    if not arguments.tuning:
        interpreter = Interpreter(reader, reader, examples)
        for name in arguments.recognisers:
            recogniser = make_recogniser(name, [text for task in TASKS for text in example_sentences(task)])
            found[name]["people"] = _people(recogniser, interpreter, arguments.recordings)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def _people(recogniser: Recogniser, interpreter: Interpreter, recordings: Sequence[Path]) -> dict[str, Any]:
    """What people who read aloud, or order coffee, are taken to mean: nothing of it is a command."""
    folder = ModelStore().path("librivox-clips")
    sounds = {path.stem: read_wav(path) for path in sorted(folder.glob("*.wav"))}
    if recordings:
        said = (clip for clip in read_recordings(recordings, TEST) if clip.kind == OTHER_KIND)
        sounds |= {f"{clip.voice} {number}": clip.samples for number, clip in enumerate(said)}
    meant: Counter[str] = Counter()
    accepted = []
    for name, samples in sounds.items():
        segmenter = Segmenter(Silero(), SegmentSettings())
        for part in segmenter.push(np.concatenate([samples, np.zeros(RATE_HZ, np.float32)])):
            interpreter.asked, interpreter.lifted = (), ""
            meaning = interpreter.interpret(recogniser.transcribe(part.samples))
            meant[str(meaning.intent)] += 1
            if meaning.intent is not Intent.NOTHING:
                accepted.append([name, meaning.text, str(meaning.intent), meaning.tasks])
    print(f"people: {len(sounds)} recordings; {', '.join(f'{count} {name}' for name, count in meant.most_common())}")
    return {"recordings": len(sounds), "meant": dict(meant), "accepted": accepted}


if __name__ == "__main__":
    main()
