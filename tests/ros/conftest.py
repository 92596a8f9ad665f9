"""Fixtures for tests over real ROS 2: all traffic stays on this machine, on a domain of its own."""

import os

import pytest

from tests.ros import interfaces

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


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


@pytest.fixture(scope="session")
def interface_packages():
    """control_msgs and tf2_msgs can be imported, here and in child processes; built at first, which takes a minute."""
    if interfaces.installed():
        return
    prefix = interfaces.built()
    os.environ.update(interfaces.variables(prefix))
    interfaces.load(prefix)
