"""`deer spotter`: makes the network of the stop word from nothing: speech of many voices, training, and its measure."""

from __future__ import annotations

import argparse
import json
import random
import re
from dataclasses import replace
from pathlib import Path

HELP = "make the network that hears the stop word: speak, train, measure"
SPEECH_SEED = 1
EMBEDDING = "speech-embedding"
"""Model that training begins from."""
TUNING_MINUTES, TUNING_EVERY = 60.0, 5
"""The threshold is chosen on so much speech without the word, and on one clip in five."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("do", choices=("speak", "train", "measure"), help="what to do, in this order")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/spotter"), help="folder for speech and training state"
    )
    parser.add_argument("--test", action="store_true", help="speak: with the voices that are kept for the test")
    parser.add_argument("--part", default="1/1", help="speak: one process' share, as 1/2 and 2/2")
    parser.add_argument("--steps", type=int, help="train: updates (default: as the bundled network had)")
    parser.add_argument("--out", type=Path, help="train: the checkpoint; measure: a JSON file (default: none)")
    parser.add_argument("--checkpoint", type=Path, help="measure: instead of the bundled one")
    parser.add_argument("--minutes", type=float, default=60.0, help="measure: of speech and noise without the word")
    parser.add_argument("--seed", type=int, default=0, help="of training, or of the test's rooms and noises")


def run(arguments: argparse.Namespace) -> int:
    """Does one of the three."""
    return {"speak": _speak, "train": _train, "measure": _measure}[arguments.do](arguments)


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
    from deer_policies.errors import ConfigError
    from deer_policies.speech.spotting.corpus import speak_all

    share = re.fullmatch(r"(\d+)/(\d+)", arguments.part)
    if share is None or not 1 <= int(share[1]) <= int(share[2]):
        raise ConfigError(f"--part is {arguments.part!r}; it must be N/M with N from 1 to M")
    part = (int(share[1]) - 1, int(share[2]))
    speak_all(_speech(arguments, arguments.test), sentences(arguments.test), arguments.test, SPEECH_SEED, _said, part)
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from deer_policies.errors import ConfigError
    from deer_policies.model_store.store import ModelStore
    from deer_policies.speech.spotting import embedding
    from deer_policies.speech.spotting.config import SpotterConfig
    from deer_policies.speech.spotting.corpus import read, voices
    from deer_policies.speech.spotting.measurement import chosen, measure
    from deer_policies.speech.spotting.spotter import Spotter
    from deer_policies.speech.spotting.training import SpotterRecipe, train
    from deer_ros.cli.provenance import commit, versions

    if arguments.out is None:
        raise ConfigError("--out FILE.safetensors is needed: where the trained network goes")
    clips = read(_speech(arguments, False), voices(False))
    _said(f"{len(clips)} clips of {len({clip.voice for clip in clips})} voices")
    config, recipe = SpotterConfig(), SpotterRecipe(seed=arguments.seed)
    if arguments.steps is not None:
        recipe = replace(recipe, steps=arguments.steps)
    layers = embedding.read(ModelStore().path(EMBEDDING) / "embedding_model.tflite")
    network = train(
        config, recipe, clips, layers, arguments.work, lambda step, loss: _said(f"step {step}: loss {loss:.4f}")
    )
    measured = measure(
        Spotter(config, network.exported()), clips[::TUNING_EVERY], arguments.seed, TUNING_MINUTES, _said
    )
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
    from deer_policies.speech.spotting.corpus import read, voices
    from deer_policies.speech.spotting.measurement import measure
    from deer_policies.speech.spotting.spotter import Spotter

    clips = read(_speech(arguments, True), voices(True))
    spotter = Spotter.load(arguments.checkpoint)
    measured = measure(spotter, clips, arguments.seed, arguments.minutes, _said)
    print("| threshold | misses | false stops in 30 minutes | words alike taken | p50 | p95 | p99 | latest, ms after |")
    print("|---|---|---|---|---|---|---|---|")
    for threshold, found in measured.items():
        words, false = found["all"], found["false"]
        mark = " (its own)" if threshold == spotter.config.threshold else ""
        times = " | ".join(f"{words.get(f'p{at} ms', float('nan')):.0f}" for at in (50, 95, 99, 100))
        alike = f"{found['alike']['taken']} of {found['alike']['words']}"
        misses = f"{words['missed']} of {words['words']}"
        print(
            f"| {threshold:g}{mark} | {misses} | {false['per 30 minutes']:.2f} ({false['stops']}) | {alike} | {times} |"
        )
    print(json.dumps(measured.get(spotter.config.threshold), indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(measured, indent=1) + "\n")
    return 0


def _speech(arguments: argparse.Namespace, test: bool) -> Path:
    return Path(arguments.work) / ("test" if test else "training")


def _said(text: str) -> None:
    print(text, flush=True)
