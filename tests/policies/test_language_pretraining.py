"""The language phase: tasks are told apart by text alone."""

import pytest
import torch

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import ConfigError
from deer_policies.training.language_pretraining import pretrain_language
from deer_policies.training.recipe import PretrainingPhase


def test_language_pretraining_tells_tasks_apart_and_leaves_the_rest_alone(tiny):
    config = tiny.config()
    torch.manual_seed(0)
    model = DeerModel(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wordings = {"open_drawer": ("open the drawer", "drawer open"), "close_drawer": ("close the drawer", "drawer close")}
    corpus = [text for texts in wordings.values() for text in texts]
    tokenizer = Tokenizer.train(corpus, config.language.vocabulary, config.language.max_tokens)
    classifier = pretrain_language(model, tokenizer, wordings, PretrainingPhase(60, 3e-3, batch=8), seed=1)
    assert classifier.accuracy(wordings) == (1.0, 1.0)
    swapped = {"open_drawer": wordings["close_drawer"], "close_drawer": wordings["open_drawer"]}
    assert classifier.accuracy(swapped) == (0.0, 0.0)
    changed_parts = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed_parts == {"embedding", "layers"}


def test_language_phase_is_checked():
    with pytest.raises(ConfigError, match="steps >= 1"):
        PretrainingPhase(0)
