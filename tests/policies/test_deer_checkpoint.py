"""Checkpoints: round trip to the bit, damage that is named, partial loading; and the tokenizer inside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from deer_policies.deer import tensor_files
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.checkpoint import Checkpoint, find, load, load_policy, save, save_with_provenance
from deer_policies.deer.deadline import SegmentEstimate
from deer_policies.deer.policy import DeerPolicy
from deer_policies.deer.presets import deer_nano
from deer_policies.deer.skills import SkillRecogniser, Skills
from deer_policies.deer.stepping import example_observation
from deer_policies.deer.tensor_files import read_tensors, write_tensors
from deer_policies.deer.thresholds import Calibration, Tuned
from deer_policies.deer.tokenizer import SPECIAL_TOKENS, Tokenizer
from deer_policies.errors import BudgetError, CheckpointError, ConfigError
from deer_policies.interfaces import Budget

CORPUS = ["open the drawer", "push the sliding door to the left side", "turn on the light bulb"]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    config = deer_nano().with_proprioception_statistics(np.linspace(-1, 1, 18), np.linspace(0.1, 2, 18))
    return Checkpoint(
        DeerModel(config).eval(),
        Tokenizer.train(CORPUS, 300, max_tokens=32),
        Calibration(
            torch.rand(4, 50),
            "action",
            {"episodes": 3},
            tokens=9 + torch.arange(50) % 4,
            errors=torch.rand(4, 50).masked_fill(torch.rand(4, 50) < 0.1, float("inf")),
            episodes=torch.arange(50) // 10,
            tuned=(Tuned(0.02, (0.1, 0.2, 0.3, 1e8)),),
        ),
        Budget(average_llm_gmac=0.01),
        {"seed": 7},
    )


@pytest.fixture
def path(checkpoint, tmp_path):
    path = tmp_path / "sub" / "policy.safetensors"
    save(path, checkpoint)
    return path


def rewritten(path, change_tensors=lambda tensors: None, change_metadata=lambda metadata: None):
    """Writes the file again with changes to its content."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    change_tensors(tensors)
    change_metadata(metadata)
    save_file(tensors, path, metadata)


def test_equal_checkpoints_are_equal_files(checkpoint, path):
    for name in ("second", "third", "fourth"):
        save(path.with_name(name), checkpoint)
        assert path.with_name(name).read_bytes() == path.read_bytes()


def test_round_trip_is_exact(checkpoint, path):
    loaded = load(path)
    assert loaded.model.config == checkpoint.model.config
    weights = checkpoint.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.model.state_dict().items())
    for name in ("values", "tokens", "errors", "episodes"):
        assert torch.equal(getattr(loaded.calibration, name), getattr(checkpoint.calibration, name))
    assert (loaded.calibration.source, loaded.calibration.criterion) == ({"episodes": 3}, "action")
    assert loaded.calibration.tuned == checkpoint.calibration.tuned
    assert (loaded.budget, loaded.provenance) == (checkpoint.budget, {"seed": 7})
    assert loaded.tokenizer.to_json() == checkpoint.tokenizer.to_json()


def test_a_loaded_policy_acts_the_same_to_the_bit(checkpoint, path):
    original = DeerPolicy(checkpoint.model, checkpoint.tokenizer, checkpoint.calibration, checkpoint.budget)
    loaded = load_policy(path)
    observation = example_observation(loaded.info)
    ours, theirs = (policy.step(observation, policy.initial_state()) for policy in (original, loaded))
    assert np.array_equal(ours[0].actions, theirs[0].actions)
    assert ours[2].distances == theirs[2].distances
    assert loaded.budget == Budget(average_llm_gmac=0.01)
    assert loaded.info.weights_sha256 == load(path).sha256
    assert loaded.info.details == {"seed": 7}


def test_a_policy_is_named_after_the_recipe_that_it_was_trained_by(path):
    named = path.with_name("named.safetensors")
    save_with_provenance(named, path, {"recipe": {"name": "own"}})
    assert (load_policy(path).info.name, load_policy(named).info.name) == ("deer-nano", "own")


def test_the_hash_covers_all_that_actions_follow_from(checkpoint, path):
    noted, digest = path.with_name("noted.safetensors"), load(path).sha256
    save_with_provenance(noted, path, {"seed": 7, "scores": [1.0]})
    assert load(noted).provenance == {"seed": 7, "scores": [1.0]}
    assert noted.read_bytes() != path.read_bytes()
    assert load(noted).sha256 == digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    calibration = checkpoint.calibration
    for change in (
        {"budget": Budget(average_llm_gmac=0.02)},
        {"calibration": replace(calibration, values=calibration.values * 2)},
        {"calibration": replace(calibration, criterion="feature")},
        {"tokenizer": Tokenizer.train([*CORPUS, "lift the blue block"], 300, max_tokens=32)},
    ):
        save(noted, replace(checkpoint, **change))
        assert load(noted).sha256 != digest
    taught = Skills(("open_drawer",), ("open_drawer",), {"open_drawer": "open the drawer"})
    save(noted, replace(checkpoint, skills=SkillRecogniser(taught, ("drawer",))))
    assert load(noted).skills is not None
    assert load(noted).sha256 == digest
    rewritten(path, change_tensors=lambda tensors: tensors["embedding.weight"].add_(1e-6))
    assert load(path).sha256 != digest


def test_other_provenance_leaves_every_tensor_as_it_is_stored(checkpoint, tmp_path):
    half, noted = tmp_path / "half.safetensors", tmp_path / "noted.safetensors"
    save(half, checkpoint, auxiliary_heads=True, dtype=torch.float16)
    save_with_provenance(noted, half, {})
    before, after = load_file(half), load_file(noted)
    assert before.keys() == after.keys()
    assert all(tensor.dtype == after[name].dtype and tensor.equal(after[name]) for name, tensor in before.items())
    save_file({"a": torch.zeros(1)}, half)
    with pytest.raises(CheckpointError, match="format None"):
        save_with_provenance(noted, half, {})


def test_auxiliary_heads_are_kept_on_request(checkpoint, tmp_path):
    path = tmp_path / "training.safetensors"
    save(path, checkpoint, auxiliary_heads=True)
    assert len(load(path, auxiliary_heads=True).model.auxiliary_heads) == 4
    assert len(load(path).model.auxiliary_heads) == 0


def test_auxiliary_heads_that_are_not_there(path):
    with pytest.raises(CheckpointError, match=r"lacks tensors auxiliary_heads\.0"):
        load(path, auxiliary_heads=True)


def test_peak_limits_leave_layers_unread(checkpoint, path):
    costs = DeerPolicy(checkpoint.model, checkpoint.tokenizer).costs
    policy = load_policy(path, peak=Budget(peak_llm_gmac=costs.llm_gmac(1)))
    assert len(policy.model.layers) == 4
    assert policy.info.exit_layers == (1, 3)
    _, _, report = policy.step(example_observation(policy.info), policy.initial_state())
    assert report.full_llm_gmac > report.llm_gmac
    policy = load_policy(path, peak=Budget(peak_memory_gib=costs.memory_gib(0)))
    assert len(policy.model.layers) == 2
    with pytest.raises(BudgetError, match="peak_llm_gmac"):
        load(path, peak=Budget(peak_llm_gmac=1e-9))


def test_a_latency_limit_leaves_layers_unread(path, monkeypatch):
    def segment_estimate(policy, quantile=0.95):
        # One second a segment of two layers, on a machine that is otherwise infinitely fast.
        return SegmentEstimate(0.0, (1.0,) * len(policy.info.exit_layers), 0.0, 0.0)

    built = []
    build = DeerModel.from_weights.__func__
    monkeypatch.setattr(DeerModel, "from_weights", classmethod(lambda *args: built.append(args[-1]) or build(*args)))
    monkeypatch.setattr(DeerPolicy, "segment_estimate", segment_estimate)
    policy = load_policy(path, peak=Budget(latency_ms=2100.0))
    assert policy.info.exit_layers == (1, 3)
    assert policy.budget == Budget(latency_ms=2100.0)
    assert built == [1, 2]
    assert load_policy(path, peak=Budget(latency_ms=1e6)).info.exit_layers == (1, 3, 5, 7)
    with pytest.raises(BudgetError, match=r"latency_ms = 900 can't be met: the first exit needs 1000"):
        load_policy(path, peak=Budget(latency_ms=900.0))


def test_reading_keeps_nothing_of_the_file_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "large.safetensors"
    write_tensors(path, {f"part{index}": torch.full((4, 2**20), float(index)) for index in range(20)}, {"a": "b"})
    monkeypatch.setattr(tensor_files, "MAPPED_BYTES", 2**20)
    mapped = []
    for name, tensor in read_tensors(path, {f"part{index}": torch.Size((4, 2**20)) for index in range(20)}):
        assert tensor.sum() == float(name[4:]) * 2**22
        mapped.append(sum(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines()))
    del tensor
    assert max(mapped) <= 2
    assert not any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_name_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint 'deer-mega'"):
        find("deer-mega")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        find(tmp_path / "deer-nano")


def test_a_file_that_is_cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "picture.safetensors"
    path.write_bytes(b"\x89PNG and more")
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


def test_tensors_that_do_not_fit_are_named(path):
    rewritten(path, lambda tensors: tensors.update({"head.norms.0.weight": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"head.norms.0.weight has shape \(3,\)"):
        load(path)
    rewritten(path, lambda tensors: tensors.pop("head.norms.0.weight"))
    with pytest.raises(CheckpointError, match=r"lacks tensors head.norms.0.weight"):
        load(path)


def test_unexpected_tensors_are_named(path):
    rewritten(path, lambda tensors: tensors.update({"extra.weight": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"unexpected tensors extra.weight"):
        load(path)


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("format", "other-1", "format 'other-1'"),
        ("config", "{", "damaged"),
        ("config", json.dumps({"name": "x", "wheels": 4}), "unknown settings"),
        ("tokenizer", "{}", "tokenizer"),
    ],
)
def test_metadata_that_does_not_fit(path, key, text, words):
    rewritten(path, change_metadata=lambda metadata: metadata.update({key: text}))
    with pytest.raises(CheckpointError, match=words):
        load(path)


def test_a_calibration_for_other_exits(path):
    rewritten(path, lambda tensors: tensors.update({"calibration.values": torch.zeros(2, 5)}))
    with pytest.raises(CheckpointError, match="calibrate the policy again"):
        load(path)


def test_a_calibration_of_values_alone(path):
    """Files from before anything else was recorded have no more."""
    rest = ("calibration.tokens", "calibration.errors", "calibration.episodes")
    rewritten(path, lambda tensors: [tensors.pop(name) for name in rest])
    calibration = load(path).calibration
    assert (calibration.tokens, calibration.errors, calibration.episodes) == (None, None, None)


def test_a_failed_save_leaves_the_old_file(checkpoint, path, monkeypatch):
    before = path.read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("deer_policies.deer.tensor_files.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save(path, checkpoint)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, 320, max_tokens=16)


class TestTokenizer:
    def test_prompt(self, tokenizer):
        ids = tokenizer.encode("open the drawer")
        end, _, image, end_of_chunk = (tokenizer._core.token_to_id(token) for token in SPECIAL_TOKENS)
        assert (ids[0], ids[-2:]) == (image, [end_of_chunk, end])

    def test_known_words_are_few_tokens_and_unknown_ones_sub_words(self, tokenizer):
        assert len(tokenizer.encode("open the drawer")) < len(tokenizer.encode("mend the zeppelin"))
        assert tokenizer.encode("zeppelin") != tokenizer.encode("quokka")

    def test_batch_is_padded_and_masked(self, tokenizer):
        ids, mask = tokenizer.encode_batch(["open the drawer", "turn on the light bulb"])
        assert ids.shape == mask.shape
        assert mask.sum(1).tolist() == [
            len(tokenizer.encode(text)) for text in ("open the drawer", "turn on the light bulb")
        ]
        assert ids[0, : mask[0].sum()].tolist() == tokenizer.encode("open the drawer")

    def test_long_texts_are_cut(self, tokenizer):
        assert len(tokenizer.encode("drawer " * 100)) == 16

    def test_markers_in_a_text_are_text(self, tokenizer):
        assert tokenizer.encode("<image>").count(tokenizer.encode("x")[0]) == 1

    def test_the_same_corpus_gives_the_same_tokenizer_in_another_process(self, tokenizer):
        code = (
            "from deer_policies.deer.tokenizer import Tokenizer;"
            f"print(Tokenizer.train({CORPUS[::-1]!r}, 320, max_tokens=16).to_json(), end='')"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert other.stdout == tokenizer.to_json()

    def test_round_trip(self, tokenizer):
        again = Tokenizer.from_json(tokenizer.to_json())
        assert again.encode("close the drawer") == tokenizer.encode("close the drawer")

    def test_a_vocabulary_that_is_too_small(self):
        with pytest.raises(ConfigError, match="at least 260"):
            Tokenizer.train(CORPUS, 100, max_tokens=16)
