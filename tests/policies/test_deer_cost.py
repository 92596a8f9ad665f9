"""The cost table: figures that are known, what PyTorch counts on whole passes, memory by precision, the command."""

from __future__ import annotations

import json
import re
import weakref

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel
from deer_policies.deer.checkpoint import load_policy
from deer_policies.deer.config import changed
from deer_policies.deer.cost_table import cost_table, relation_to_paper
from deer_policies.deer.exits import ThresholdRule
from deer_policies.deer.precision import PRECISIONS
from deer_policies.deer.presets import deer_nano, openflamingo_3b, openflamingo_9b
from deer_policies.deer.stepping import example_observation
from deer_policies.errors import CheckpointError, ConfigError
from deer_ros.cli.cost import config_of
from deer_ros.cli.main import main

LLM_AND_EMBEDDING_MILLIONS = {("3b", 24): 2192, ("3b", 12): 1148, ("3b", 4): 451, ("9b", 32): 7764, ("9b", 12): 3040}
POLICY_FLOAT32_GB = {("3b", 24): 10.40, ("3b", 12): 6.22, ("3b", 4): 3.44, ("9b", 32): 32.7, ("9b", 12): 13.8}
"""facts, section 13, by size and layers kept."""


def sized(size: str, layers: int):
    base = {"3b": openflamingo_3b, "9b": openflamingo_9b}[size]()
    return changed(base, {"language": {"layers": layers}})


def counted_gmac(run) -> float:
    """What PyTorch counts, in 1e9 multiply-accumulates; the fused attention kernel would escape it."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("exit_index", [0, 3])
def test_a_real_step_of_the_bundled_policy_costs_what_the_table_says(exit_index):
    policy = load_policy("deer-nano")
    policy.set_exit_rule(ThresholdRule((-1.0,) * exit_index + (1e8,)))
    observation = example_observation(policy.info)
    tokens = len(policy.tokenizer.encode(observation.instruction))
    counted = counted_gmac(lambda: policy.step(observation, policy.initial_state()))
    # The instruction is remembered after one step, but embedding it multiplies nothing.
    row = cost_table(policy.model.config, tokens).exits[exit_index]
    checked = row.checked_gmac if exit_index else row.total_gmac
    assert counted == pytest.approx(checked, rel=1e-3)


@pytest.mark.parametrize("config", [deer_nano(), openflamingo_3b(), openflamingo_9b()], ids=lambda config: config.name)
def test_a_pass_at_full_size_costs_what_the_table_says(config):
    """On tensors without storage."""
    with torch.device("meta"):
        model = DeerModel(config, auxiliary_heads=False).eval().requires_grad_(False)
        images = torch.zeros(1, 2, 3, config.vision.image_size, config.vision.image_size)
        ids, mask = torch.zeros(1, 13, dtype=torch.int64), torch.ones(1, 13, dtype=torch.bool)
        robot = torch.zeros(1, 1, 15) if config.head.use_proprioception else None

        def step():
            text = model.text(ids, mask)
            *_, feature = model.exit_features(text, model.media(images))
            model.head(feature[:, None], robot)

        counted = counted_gmac(step)
    assert counted == pytest.approx(cost_table(config, 13).exits[-1].total_gmac, rel=1e-3)


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in tree_leaves(args) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is None or storage._cdata in self._counted | given:
                continue
            self._counted.add(storage._cdata)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._died, storage._cdata, storage.nbytes())
            self.peak = max(self.peak, self.live)
        return made

    def _died(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.live -= size


@pytest.mark.parametrize(
    ("config", "device"), [(deer_nano(), "cpu"), (openflamingo_3b(), "meta"), (openflamingo_9b(), "meta")]
)
def test_activations_are_what_lives_at_the_worst_moment(config, device):
    with torch.device(device):
        model = DeerModel(config, auxiliary_heads=False).eval()
        images = torch.zeros(1, 2, 3, config.vision.image_size, config.vision.image_size, dtype=torch.uint8)
        ids, mask = torch.zeros(1, 13, dtype=torch.int64), torch.ones(1, 13, dtype=torch.bool)
        with torch.no_grad(), LiveTensors() as tensors:
            list(model.exit_features(model.text(ids, mask), model.media(images)))
    assert tensors.peak == pytest.approx(CostModel(config).activations(13) * 4, rel=0.01)


def test_parts_add_up_and_deeper_exits_cost_more():
    table = cost_table(deer_nano(), 9)
    for row in table.exits:
        parts = row.vision_gmac + row.resampler_gmac + row.llm_gmac
        assert row.total_gmac == pytest.approx(parts + row.head_gmac)
        assert row.checked_gmac == pytest.approx(parts + (row.exit_index + 2) * row.head_gmac)
    for shallow, deep in zip(table.exits, table.exits[1:], strict=False):
        assert deep.llm_gmac > shallow.llm_gmac
        assert deep.parameters > shallow.parameters
        assert all(b.weights_gib > a.weights_gib for a, b in zip(shallow.memory, deep.memory, strict=True))


@pytest.mark.parametrize(
    ("tokens", "gmac"),
    [(10, 0.996), (11, 1.082), (12, 1.168), (13, 1.254), (14, 1.341), (16, 1.513), (32, 2.894)],
)
def test_known_cost_of_a_layer_of_the_3b_model(tokens, gmac):
    """facts, section 12."""
    assert cost_table(openflamingo_3b(), tokens).exits[-1].llm_gmac / 12 == pytest.approx(gmac, abs=6e-4)


def test_known_costs_of_whole_models():
    """facts, section 12: 30.1 GMAC at 24 layers and 13 tokens, 204.8 with vision added to the paper's 31.2, 9B 3.10."""
    three, nine = cost_table(sized("3b", 24), 13).exits[-1], cost_table(sized("9b", 32), 13).exits[-1]
    assert three.llm_gmac == pytest.approx(30.1, abs=0.05)
    assert (three.vision_gmac / 2, three.resampler_gmac / 2) == pytest.approx((81.0, 5.78), abs=0.05)
    assert 31.2 + three.vision_gmac + three.resampler_gmac == pytest.approx(204.8, abs=0.1)
    assert nine.llm_gmac / 32 == pytest.approx(3.10, abs=0.005)
    costs = CostModel(openflamingo_9b())
    assert costs.layer_mac(0, 13) / 13e9 == pytest.approx(0.2013, abs=2e-4)
    assert (costs.layer_mac(3, 13) - costs.layer_mac(0, 13)) / 1e9 == pytest.approx(0.1384 * 13 + 0.134, abs=5e-3)


def test_relation_to_the_paper():
    text = relation_to_paper()
    assert "31.2 / 15.6 / 7.8 GFLOPs are 24 / 12 / 6 language model layers of OpenFlamingo-3B times 1.3" in text
    assert "1.254 GMAC of one layer at 13 tokens" in text
    assert "exactly it is 30.1 / 15.1 / 7.5 GMAC" in text
    assert "vision and resampler add 173.5 GMAC" in text


@pytest.mark.parametrize(("size", "layers"), LLM_AND_EMBEDDING_MILLIONS)
def test_known_parameters_and_memory(size, layers):
    config = sized(size, layers)
    with torch.device("meta"):
        model = DeerModel(config, auxiliary_heads=False)
    language = sum(weight.numel() for part in (model.layers, model.embedding) for weight in part.parameters())
    assert language / 1e6 == pytest.approx(LLM_AND_EMBEDDING_MILLIONS[size, layers], abs=1)
    row = cost_table(config).exits[-1]
    single, half, *_ = row.memory
    assert single.weights_gib * 2**30 / 1e9 == pytest.approx(POLICY_FLOAT32_GB[size, layers], rel=3e-3)
    assert single.weights_gib == pytest.approx(row.parameters * 4 / 2**30)
    # The head stays float32.
    head = sum(weight.numel() for weight in model.head.parameters())
    assert half.weights_gib == pytest.approx(single.weights_gib / 2 + head * 2 / 2**30)
    assert half.activations_gib == pytest.approx(single.activations_gib / 2)


def test_weight_only_precisions_count_their_scales():
    """By hand: int8 has scale and zero (4 and 1 bytes) for a row, int4 both (2 and 2) for 32 inputs."""
    config = deer_nano()
    with torch.device("meta"):
        model = DeerModel(config, auxiliary_heads=False)
    numbers = sum(weight.numel() for weight in model.parameters())
    head = sum(weight.numel() for weight in model.head.parameters())
    linear = [
        weight
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and re.match(r"(vision\.blocks|resampler\.(layers|landmarks\.\w+\.weight)|layers)\b", name)
    ]
    rows = sum(weight.shape[0] for weight in linear)
    grouped = [weight for weight in linear if weight.shape[1] % 32 == weight.shape[0] % 16 == 0]
    groups = sum(weight.shape[0] * weight.shape[1] // 32 for weight in grouped)
    stored, in_groups = (sum(weight.numel() for weight in each) for each in (linear, grouped))
    rest, others = (2 * (numbers - head - count) + 4 * head for count in (stored, in_groups))
    *_, int8, int4 = cost_table(config).exits[-1].memory
    assert int8.weights_gib * 2**30 == stored + rest + 5 * rows
    assert int4.weights_gib * 2**30 == in_groups / 2 + others + 4 * groups


@pytest.mark.parametrize("tokens", [0, 33])
def test_texts_that_the_policy_does_not_take(tokens):
    with pytest.raises(ConfigError, match=f"tokens is {tokens}; openflamingo-3b takes 1 to 32"):
        cost_table(openflamingo_3b(), tokens)


def test_policies_by_name_path_and_preset(tmp_path):
    from deer_policies.deer.checkpoint import find

    bundled = config_of("deer-nano")
    assert bundled == config_of(str(find("deer-nano")))
    # The bundled checkpoint and not the preset of that name, which knows nothing of its training data.
    assert bundled != deer_nano()
    assert config_of("openflamingo-9b") == openflamingo_9b()
    with pytest.raises(CheckpointError, match=r"no checkpoint 'gpt'.*or a preset: deer-nano, openflamingo-3b"):
        config_of("gpt")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        config_of(str(tmp_path / "x.safetensors"))


def test_command_prints_json(capsys):
    assert main(["cost", "--policy", "openflamingo-3b", "--tokens", "13", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["policy"], printed["tokens"]) == ("openflamingo-3b", 13)
    assert [row["exit_layer"] for row in printed["exits"]] == [1, 3, 5, 7, 9, 11]
    assert printed["exits"][-1]["llm_gmac"] == pytest.approx(12 * 1.254, abs=0.01)
    assert [entry["precision"] for entry in printed["exits"][0]["memory"]] == list(PRECISIONS)


def test_command_prints_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["cost", "--policy", "openflamingo-3b", "--tokens", "13"]) == 0
    printed = capsys.readouterr().out
    assert "openflamingo-3b, 13 tokens: GMAC" in printed
    assert re.search(r"5 +12 +162\.02 +11\.526 +15\.053 +0\.040898 +188\.64 +188\.89", printed), printed
    assert "31.2 / 15.6 / 7.8" in printed
    assert main(["cost", "--tokens", "99"]) == 2
