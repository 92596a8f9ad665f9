"""`deer spotter`: makes the network of the stop word from nothing: speech of many voices, training, and its measure."""

from __future__ import annotations

import argparse
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

HELP = "make the network that hears the stop word: speak, listen, train, measure"
SPEECH_SEED = 1
EMBEDDING = "speech-embedding"
"""Model that training begins from."""
TUNING_MINUTES, TUNING_EVERY = 60.0, 5
"""The threshold is chosen on so much speech without the word, and on one of five clips of the engines' voices."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("do", choices=("speak", "listen", "train", "measure"), help="what to do, in this order")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/spotter"), help="folder for speech and training state"
    )
    parser.add_argument("--test", action="store_true", help="speak, listen: the voices that are kept for the test")
    parser.add_argument("--part", default="1/1", help="speak, listen: one process' share, as 1/2 and 2/2")
    parser.add_argument(
        "--recordings",
        type=Path,
        action="append",
        default=[],
        help="train, measure: a folder of people's recordings too",
    )
    parser.add_argument("--steps", type=int, help="train: updates (default: as the bundled network had)")
    parser.add_argument("--out", type=Path, help="train: the checkpoint; measure: a JSON file (default: none)")
    parser.add_argument("--checkpoint", type=Path, help="measure: instead of the bundled one")
    parser.add_argument("--minutes", type=float, default=60.0, help="measure: of speech and noise without the word")
    parser.add_argument("--seed", type=int, default=0, help="of training, or of the test's rooms and noises")


def run(arguments: argparse.Namespace) -> int:
    """Does one of the four."""
    return {"speak": _speak, "listen": _listen, "train": _train, "measure": _measure}[arguments.do](arguments)


def sentences(test: bool) -> list[str]:
    """What is said besides the stop word: requests, things outside the skills, chatter; nothing with "stop"."""
    from deer_sim import instructions, outside
    from deer_sim.framing import remark
    from deer_sim.tasks import TASKS

    draw = random.Random(7 + test)
    if test:
        requests = [text for task in TASKS for text in instructions.validation(task)]
        others = [text for group in outside.GROUPS for text in outside.validation(group)]
    else:
        requests = [text for task in TASKS for text in draw.sample(instructions.plain_training(task), 30)]
        others = draw.sample(outside.training(), 1500)
    found = [*requests, *others, *(remark(draw) for _ in range(1000))]
    return [text for text in found if not re.search(r"\bstop|stop\b", text) and 2 <= len(text.split()) <= 14]


def _speak(arguments: argparse.Namespace) -> int:
    from deer_policies.speech.spotting.corpus import script, speak

    said = sentences(arguments.test)
    for engine, voice in _share(arguments):
        if speak(_speech(arguments, arguments.test), engine, voice, script(engine, voice, said, SPEECH_SEED)):
            _said(f"{engine}/{voice} has spoken")
    return 0


def _listen(arguments: argparse.Namespace) -> int:
    from deer_policies.speech.spotting.listening import GARBLING, Listener, listen

    listener = Listener()
    for engine, voice in _share(arguments):
        if engine in GARBLING and listen(_speech(arguments, arguments.test), engine, voice, listener):
            _said(f"{engine}/{voice} has been listened to")
    return 0


def _share(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The voices of which this process takes care."""
    from deer_policies.errors import ConfigError
    from deer_policies.speech.spotting.corpus import voices

    share = re.fullmatch(r"(\d+)/(\d+)", arguments.part)
    if share is None or not 1 <= int(share[1]) <= int(share[2]):
        raise ConfigError(f"--part is {arguments.part!r}; it must be N/M with N from 1 to M")
    return voices(arguments.test)[int(share[1]) - 1 :: int(share[2])]


def _train(arguments: argparse.Namespace) -> int:
    from deer_policies.errors import ConfigError
    from deer_policies.model_store.store import ModelStore
    from deer_policies.speech.spotting import embedding
    from deer_policies.speech.spotting.config import SpotterConfig
    from deer_policies.speech.spotting.corpus import voices
    from deer_policies.speech.spotting.listening import read_understood
    from deer_policies.speech.spotting.measurement import chosen, measure
    from deer_policies.speech.spotting.recordings import TRAINING, TUNING, read_recordings
    from deer_policies.speech.spotting.spotter import Spotter
    from deer_policies.speech.spotting.training import SpotterRecipe, train
    from deer_ros.cli.provenance import commit, versions

    if arguments.out is None:
        raise ConfigError("--out FILE.safetensors is needed: where the trained network goes")
    spoken = read_understood(_speech(arguments, False), voices(False))
    clips = [*spoken, *read_recordings(arguments.recordings, TRAINING)]
    tuning = [*spoken[::TUNING_EVERY], *read_recordings(arguments.recordings, TUNING)]
    _said(f"{len(clips)} clips of {len({clip.voice for clip in clips})} voices and people")
    config, recipe = SpotterConfig(), SpotterRecipe(seed=arguments.seed)
    if arguments.steps is not None:
        recipe = replace(recipe, steps=arguments.steps)
    layers = embedding.read(ModelStore().path(EMBEDDING) / "embedding_model.tflite")
    network = train(
        config, recipe, clips, layers, arguments.work, lambda step, loss: _said(f"step {step}: loss {loss:.4f}")
    )
    measured = measure(Spotter(config, network.exported()), tuning, arguments.seed, TUNING_MINUTES, _said)
    config = replace(config, threshold=chosen(measured))
    about = {
        "recipe": repr(recipe),
        "clips": str(len(clips)),
        "commit": commit(),
        "versions": json.dumps(versions(("torch", "numpy", "hibari-tts", "py-nanotts"))),
        "scores": json.dumps({name: measured[config.threshold][name] for name in ("all", "false", "alike")}),
    }
    Spotter(config, network.exported()).save(arguments.out, about)
    _said(f"wrote {arguments.out}; threshold {config.threshold:g}, on the voices of training {about['scores']}")
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    from deer_policies.speech.spotting.corpus import voices
    from deer_policies.speech.spotting.listening import read_understood
    from deer_policies.speech.spotting.measurement import measure
    from deer_policies.speech.spotting.recordings import TEST, read_recordings
    from deer_policies.speech.spotting.spotter import Spotter

    spotter = Spotter.load(arguments.checkpoint)
    groups = {"voices of engines": read_understood(_speech(arguments, True), voices(True))}
    if arguments.recordings:
        groups["people"] = read_recordings(arguments.recordings, TEST)
    found = {}
    for name, clips in groups.items():
        print(f"\n{name}: {len({clip.voice for clip in clips})}\n")
        found[name] = measure(spotter, clips, arguments.seed, arguments.minutes, _said)
        _table(found[name], spotter.config.threshold)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _table(measured: dict[float, dict[str, Any]], own: float) -> None:
    print("| threshold | misses | false stops in 30 minutes | words alike taken | p50 | p95 | p99 | latest, ms after |")
    print("|---|---|---|---|---|---|---|---|")
    for threshold, found in measured.items():
        words, false = found["all"], found["false"]
        mark = " (its own)" if threshold == own else ""
        times = " | ".join(f"{words.get(f'p{at} ms', float('nan')):.0f}" for at in (50, 95, 99, 100))
        alike = f"{found['alike']['taken']} of {found['alike']['words']}"
        misses = f"{words['missed']} of {words['words']}"
        print(
            f"| {threshold:g}{mark} | {misses} | {false['per 30 minutes']:.2f} ({false['stops']}) | {alike} | {times} |"
        )
    print(json.dumps(measured.get(own), indent=1))


def _speech(arguments: argparse.Namespace, test: bool) -> Path:
    return Path(arguments.work) / ("test" if test else "training")


def _said(text: str) -> None:
    print(text, flush=True)
