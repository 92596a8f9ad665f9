"""One thread for PyTorch (threads that wait for each other are slow on a busy machine); small policies and releases."""

import dataclasses

import numpy as np
import pytest

TEXTS = ("open the drawer", "push the door left")
HORIZON = 2
TINY = {
    "preprocess": {"image_size": 32},
    "vision": {"image_size": 32, "stem_channels": [8, 8, 8, 16], "dim": 16, "heads": 2},
    "resampler": {"latents": 2, "layers": 1, "heads": 2, "head_dim": 8, "landmarks": 4},
    "language": {"dim": 16, "heads": 2, "layers": 4, "cross_attention_heads": 2, "cross_attention_head_dim": 8},
    "head": {"lstm_hidden": 16, "mlp_dims": [16], "horizon": HORIZON, "proprioception_dim": 8},
}


@pytest.fixture(scope="session", autouse=True)
def single_threaded_torch():
    import torch

    torch.set_num_threads(1)


class Tiny:
    """Makes models, episodes and trainers of the smallest size that has every mechanism."""

    texts = TEXTS

    def config(self, **changes):
        from deer_policies.deer.config import changed
        from deer_policies.deer.presets import deer_nano

        return changed(changed(deer_nano(), TINY), changes)

    def tokenizer(self, config):
        from deer_policies.deer.tokenizer import Tokenizer

        return Tokenizer.train(TEXTS, config.language.vocabulary, config.language.max_tokens)

    def episode(self, steps, task="open_drawer", seed=0, horizon=HORIZON):
        from deer_policies.training.episodes import Episode

        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (steps, 2, 3, 32, 32), dtype=np.uint8)
        labels = rng.uniform(-1, 1, (steps, horizon, 7)).astype(np.float32)
        labels[..., 6] = np.sign(labels[..., 6])
        landmarks = rng.uniform(size=(steps, 2, 4, 3)).astype(np.float32)
        landmarks[..., 2] = landmarks[..., 2] > 0.3
        return Episode(
            images=images,
            proprioception=rng.normal(size=(steps, 15)).astype(np.float32),
            labels=labels,
            task=task,
            instructions=TEXTS,
            known=np.ones((steps, horizon), bool),
            scene=rng.normal(size=(steps, 3)).astype(np.float32),
            landmarks=landmarks,
            focus=rng.normal(size=(steps, 2)).astype(np.float32),
        )

    def settings(self, **changes):
        from deer_policies.training.recipe import Optimisation

        plain = Optimisation(batch=2, window=5, ema_decay=0.5, brightness=0.0, shift_px=(0, 0))
        return dataclasses.replace(plain, **changes)

    def trainer(self, folder, settings=None, config=None, initial=0, **others):
        import torch

        from deer_policies.deer.backbone import DeerModel
        from deer_policies.training.trainer import Trainer

        config = config or self.config()
        torch.manual_seed(initial)
        model, settings = DeerModel(config), settings or self.settings()
        return Trainer(model, self.tokenizer(config), settings, folder, seed=1, **others)

    def streams(self, seed=0):
        from deer_policies.training.episodes import EpisodeStreams

        episodes = [self.episode(10), self.episode(12, "b", 1)]
        return EpisodeStreams(episodes, 2, 5, np.random.default_rng(seed))


@pytest.fixture(scope="session")
def tiny():
    return Tiny()


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> dict[str, str]:
    """What every import of a small release needs beside the release."""
    from tests.policies import release_layouts as layouts

    folder = tmp_path_factory.mktemp("parts")
    return {
        "tokenizer": str(layouts.tokenizer_file(folder / "tokenizer.json")),
        "clip": str(layouts.clip_file(folder / "clip.pt")),
    }


@pytest.fixture
def importing(parts, tmp_path):
    """Imports a small DeeR release that has these parameters and settings."""
    from deer_policies.deer.importing import ImportPlan, import_release
    from tests.policies import release_layouts as layouts

    def run(state=None, plan=None, **settings):
        release = layouts.deer_file(tmp_path / "deer.pth", state, **settings)
        wanted = {"release": str(release), "base": "openflamingo-3b", "heads": layouts.OWN_SIZE} | parts | (plan or {})
        return import_release(ImportPlan(**wanted))

    return run
