"""What tests put into runs of the trainer, and what they look at in them: its log and its weights."""

import json

import numpy as np
import torch

from deer_policies.training.drawing import BatchDrawer
from deer_policies.training.episodes import EpisodeStreams


def records(folder):
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time_s", "updates_per_s")} for line in lines]


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def differing(first, second):
    return {name for name, value in first.items() if not torch.equal(value, second[name])}


def fixed_batches(tiny):
    """Two batches of four streams; the halves have different numbers of real steps."""
    config = tiny.config()
    drawer = BatchDrawer(tiny.tokenizer(config), tiny.settings(), len(config.language.exit_layers), (3,))
    episodes = [tiny.episode(7, seed=4), tiny.episode(9, "b", 6)]
    streams = EpisodeStreams(episodes, 4, 5, np.random.default_rng(1))
    return [drawer.draw(streams.next()) for _ in range(2)]
