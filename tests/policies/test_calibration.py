"""What is recorded for thresholds: a value and a distance for each exit and step."""

from dataclasses import replace

import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.exits import ThresholdRule
from deer_policies.errors import ConfigError
from deer_policies.training.calibration import calibrate, encode


def test_calibration_has_a_value_for_each_exit_and_step(tiny):
    config = tiny.config()
    torch.manual_seed(0)
    model = DeerModel(config).eval()
    tokenizer, episodes = tiny.tokenizer(config), [tiny.episode(6), tiny.episode(9)]
    episodes = [replace(each, instructions=(text,)) for each, text in zip(episodes, tiny.texts, strict=True)]
    clips = [encode(model, tokenizer, each) for each in episodes]
    found = calibrate(model, clips, ThresholdRule.fixed(0), "feature", {"episodes": 2})
    exits = len(config.language.exit_layers)
    assert found.values.shape == found.errors.shape == (exits, 15)
    assert (found.values > 0).all()
    assert (found.errors[:-1] > 0).all()
    assert (found.errors[-1] == 0).all()
    assert (found.criterion, found.source) == ("feature", {"episodes": 2})
    assert found.episodes.tolist() == [0] * 6 + [1] * 9
    lengths = [len(tokenizer.encode(text)) for text in tiny.texts]
    assert found.tokens.tolist() == [lengths[0]] * 6 + [lengths[1]] * 9
    with pytest.raises(ConfigError, match="no episode"):
        calibrate(model, [], ThresholdRule.fixed(0), "action", {})
