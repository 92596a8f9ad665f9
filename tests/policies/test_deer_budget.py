"""The cost model against counted operations and known figures, and which exits a budget allows."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import CostModel, blind_exits, fitting_exits, loadable_exits
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.precision import PRECISIONS
from deer_policies.deer.presets import deer_nano, openflamingo_3b, openflamingo_9b
from deer_policies.errors import BudgetError
from deer_policies.interfaces import Budget

TOKENS = 9
SMALL_3B = changed(
    openflamingo_3b(),
    {
        "preprocess": {"image_size": 56},
        "vision": {"image_size": 56, "dim": 64, "layers": 2, "heads": 2},
        "language": {"dim": 96, "heads": 4, "layers": 7, "vocabulary": 50, "cross_attention_interval": 3},
        "head": {"lstm_hidden": 40},
    },
)


def counted_mac(run) -> float:
    """Multiply-accumulates that PyTorch counts while `run` runs; the fused attention kernel would escape its count."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("config", [deer_nano(), SMALL_3B], ids=lambda config: config.name)
class TestAgainstCountedOperations:
    @pytest.fixture
    def model(self, config: DeerConfig) -> DeerModel:
        return DeerModel(config, auxiliary_heads=False).eval().requires_grad_(False)

    def test_vision(self, config, model):
        images = torch.zeros(2, 3, config.vision.image_size, config.vision.image_size)
        assert counted_mac(lambda: model.vision(images)) == pytest.approx(CostModel(config).vision_mac, rel=1e-3)

    def test_resampler(self, config, model):
        tokens = torch.zeros(2, config.vision.tokens, config.vision.dim)
        assert counted_mac(lambda: model.resampler(tokens)) == pytest.approx(CostModel(config).resampler_mac, rel=1e-3)

    def test_language_up_to_each_exit(self, config, model):
        media = torch.zeros(1, 2 * config.resampler.tokens, config.vision.dim)
        text = model.text(torch.ones(1, TOKENS, dtype=torch.int64), torch.ones(1, TOKENS, dtype=torch.bool))
        for index in range(len(config.language.exit_layers)):
            mac = counted_mac(lambda count=index + 2: list(islice(model.exit_features(text, media), count)))
            assert mac == pytest.approx(CostModel(config).llm_gmac(index, TOKENS) * 1e9, rel=1e-3)

    def test_head(self, config, model):
        feature, robot = torch.zeros(1, 1, config.language.dim), torch.zeros(1, 1, 15)
        assert counted_mac(lambda: model.head(feature, robot)) == pytest.approx(CostModel(config).head_mac, rel=1e-3)

    def test_total(self, config):
        costs = CostModel(config)
        whole = costs.vision_mac + costs.resampler_mac + 3 * costs.head_mac + costs.llm_gmac(1, TOKENS) * 1e9
        assert costs.total_gmac(1, TOKENS, head_runs=3) == pytest.approx(whole / 1e9)
        one_view = whole - (costs.vision_mac + costs.resampler_mac) / 2
        assert costs.total_gmac(1, TOKENS, head_runs=3, encoded_views=1) == pytest.approx(one_view / 1e9)

    def test_parameters(self, config, model):
        last = len(config.language.exit_layers) - 1
        assert CostModel(config).parameters(last) == sum(weight.numel() for weight in model.parameters())


def test_known_figures_of_the_official_sizes():
    """facts, section 12 and 13: 1.254 GMAC a layer at 13 tokens, 173.6 GMAC of vision, 40.9 MMAC a run of the head."""
    costs = CostModel(openflamingo_3b())
    assert costs.layer_mac(0, 13) / 1e9 == pytest.approx(1.254, abs=0.001)
    assert (costs.vision_mac + costs.resampler_mac) / 1e9 == pytest.approx(173.6, abs=0.1)
    assert costs.head_mac / 1e6 == pytest.approx(40.9, abs=0.05)
    assert costs.parameters(5) * 4 / 1e9 == pytest.approx(6.22, abs=0.01)
    nine = CostModel(openflamingo_9b())
    full = changed(openflamingo_9b(), {"language": {"layers": 32}})
    mean_layer = CostModel(full).llm_gmac(15, 13) / 32
    assert mean_layer == pytest.approx(3.10, abs=0.01)
    assert nine.config.language.has_cross_attention(3)


def test_memory_grows_with_depth_and_halves_with_half_precision():
    costs = CostModel(openflamingo_3b())
    single, half = costs.memory_gib(5), costs.memory_gib(5, PRECISIONS["bfloat16"])
    assert costs.memory_gib(1) < single
    head = sum(weight.numel() for weight in costs.empty_model(5).head.parameters())
    assert half == pytest.approx(single / 2 + head * 2 / 2**30)
    assert single == pytest.approx(5.83, abs=0.01)


def test_fitting_exits():
    assert fitting_exits("latency_ms", None, [1.0, 2.0]) == 2
    assert fitting_exits("latency_ms", 1.5, [1.0, 2.0]) == 1
    assert fitting_exits("latency_ms", 2.0, [1.0, 2.0]) == 2
    with pytest.raises(
        BudgetError, match=r"latency_ms = 0.5 can't be met: the first exit needs 1; allow at least that"
    ):
        fitting_exits("latency_ms", 0.5, [1.0, 2.0])


def test_peak_limits_choose_what_is_loaded():
    costs = CostModel(openflamingo_3b())
    assert loadable_exits(Budget(), costs) == 6
    assert loadable_exits(Budget(peak_memory_gib=4.0), costs) == 3
    assert loadable_exits(Budget(peak_memory_gib=4.0), costs, PRECISIONS["bfloat16"]) == 6
    assert loadable_exits(Budget(peak_memory_gib=4.0, peak_llm_gmac=5.0), costs, PRECISIONS["bfloat16"]) == 2
    with pytest.raises(BudgetError, match="peak_memory_gib = 1 can't"):
        loadable_exits(Budget(peak_memory_gib=1.0), costs)


def test_exits_before_the_first_cross_attention_are_blind():
    assert blind_exits(openflamingo_9b()) == 1
    assert blind_exits(openflamingo_3b()) == 0
