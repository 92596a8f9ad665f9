"""Shows that training does not wait for data: time to read windows from CALVIN's layout, against that of an update.

Run: python benchmarks/dataset.py [--data FOLDER] [--rounds 10] [--batch 16] [--window 16]

Without --data it makes a split of 60 annotations with coarse random images first. In every round an update of
`deer-nano` and the reading of its windows take turns, each way of reading once: packed frames that the system still
has in memory, the same after it was told to forget them, read ahead during the update (what `deer train` does; the time
is what the next update waits), and the dataset's own files, decompressed and resized when they are needed.
"""

from __future__ import annotations

import argparse
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.training.drawing import BatchDrawer
from deer_policies.training.episodes import Episode, EpisodeStreams
from deer_policies.training.optimiser import make_optimiser
from deer_policies.training.read_ahead import ReadAhead
from deer_policies.training.recipe import Optimisation, Phase
from deer_policies.training.trainer import Trainer
from deer_ros.cli.calvin_data import CalvinEpisodes
from deer_sim.dataset import Annotation, CalvinDataset, Statistics, write_frame, write_index
from deer_sim.tasks import TASKS

ANNOTATIONS, FRAMES = 60, 64


def coarse_image(rng: np.random.Generator, size: int) -> np.ndarray:
    """Coarse noise (size, size, 3) uint8."""
    coarse = rng.integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))


def make_split(folder: Path) -> None:
    """Writes the frames and the index."""
    rng = np.random.default_rng(0)
    annotations, states = [], []
    for index in range(ANNOTATIONS):
        start = index * FRAMES
        annotations.append(Annotation("do it", TASKS[index % len(TASKS)], start, start + FRAMES))
        for number in range(start, start + FRAMES):
            vectors = {name: rng.uniform(-1, 1, size) for name, size in (("actions", 7), ("rel_actions", 7))}
            for vector in vectors.values():
                vector[6] = 1.0
            vectors |= {"robot_obs": rng.uniform(-1, 1, 15), "scene_obs": rng.uniform(-1, 1, 24)}
            images = {"rgb_static": coarse_image(rng, 200), "rgb_gripper": coarse_image(rng, 84)}
            write_frame(folder, number, {**vectors, **images})
            states.append([vectors[name] for name in ("robot_obs", "scene_obs", "actions")])
    sums = Statistics.of(*(np.stack(column) for column in zip(*states, strict=True)))
    recordings = [(0, ANNOTATIONS * FRAMES - 1)]
    write_index(folder, recordings, annotations, {"calvin_scene_D": recordings[0]}, sums)


def drop_from_memory(episodes: list[Episode], cache: Path) -> None:
    """Has the system forget what it keeps of the packed frames in memory."""
    episodes[0].images._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
    for path in cache.rglob("images.bin"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measured(folder: Path, cache: Path, rounds: int, settings: Optimisation) -> dict[str, list[float]]:
    """Seconds of each part in every round."""
    config = deer_nano()
    data = CalvinEpisodes(folder, TASKS, config.preprocess, cache)
    packing = seconds(lambda: data.pack(os.cpu_count() or 1))
    episodes = data.load(config.head.horizon)
    tokenizer = Tokenizer.train(data.sentences, config.language.vocabulary, config.language.max_tokens)
    trainer = Trainer(DeerModel(config), tokenizer, settings, cache / "trainer", seed=0)
    optimiser = make_optimiser(trainer.model, Phase(1, 1e-3), settings)
    drawer = BatchDrawer(tokenizer, settings, len(trainer.model.exit_layers), (0,))

    def streams() -> EpisodeStreams:
        return EpisodeStreams(episodes, settings.batch, settings.window, np.random.default_rng(0), settings.carry_state)

    plain, cold, ahead = streams(), streams(), ReadAhead(streams())
    dataset = CalvinDataset(folder)
    numbers = dataset.numbers()

    def own_files() -> None:
        for number in numbers[: settings.window]:
            frame = dataset.frame(number)
            stack_views(frame["rgb_static"], frame["rgb_gripper"], config.preprocess)

    found: dict[str, list[float]] = {"packing, a frame": [packing / len(numbers)]}
    ahead.next()
    for _ in range(rounds):
        batch = drawer.draw(plain.next())
        found.setdefault("update", []).append(seconds(lambda batch=batch: trainer.update(batch, optimiser)))
        found.setdefault("wait, read ahead", []).append(seconds(ahead.next))
        found.setdefault("packed", []).append(seconds(plain.next))
        drop_from_memory(episodes, cache)
        found.setdefault("packed, from the disk", []).append(seconds(cold.next))
        found.setdefault("own files", []).append(settings.batch * seconds(own_files))
    return found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a split; None makes one")
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each part")
    parser.add_argument("--batch", type=int, default=16, help="windows in an update")
    parser.add_argument("--window", type=int, default=16, help="steps of a window")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = Optimisation(batch=arguments.batch, window=arguments.window, carry_state=False)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "training"
        if arguments.data is None:
            make_split(data)
        found = measured(data, Path(folder) / "cache", arguments.rounds, settings)
    update = float(np.median(found["update"]))
    print("\n| part | ms (median) | share of an update | windows/s |\n|---|---|---|---|")
    for name, times in found.items():
        middle = float(np.median(times))
        rate = f"{settings.batch / middle:.0f}" if name != "packing, a frame" else ""
        print(f"| {name} | {1e3 * middle:.2f} | {middle / update:.2%} | {rate} |")


if __name__ == "__main__":
    main()
