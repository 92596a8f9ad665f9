"""Fixtures for the tests of more than one folder."""

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Path of a nano policy with random weights: slow to fail, quick to run, exits solved from random values."""
    torch = pytest.importorskip("torch")
    from deer_policies.deer.backbone import DeerModel
    from deer_policies.deer.checkpoint import Checkpoint, save
    from deer_policies.deer.config import changed
    from deer_policies.deer.presets import deer_nano
    from deer_policies.deer.thresholds import Calibration
    from deer_policies.deer.tokenizer import Tokenizer

    config = changed(deer_nano(), {"head": {"horizon": 1}})
    corpus = ["open the drawer", "push the sliding door to the left", "switch on the light"]
    torch.manual_seed(0)
    model = DeerModel(config)
    tokenizer = Tokenizer.train(corpus, config.language.vocabulary, 32)
    values = torch.rand(len(config.language.exit_layers), 400) * 0.2
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save(path, Checkpoint(model, tokenizer, Calibration(values)))
    return path
