"""What a policy costs at each exit: computation by part, parameters, and memory in each precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.budget import GIB, GIGA, CostModel
from deer_policies.deer.config import DeerConfig
from deer_policies.deer.precision import PRECISIONS, Precision, Storage
from deer_policies.deer.presets import openflamingo_3b
from deer_policies.errors import ConfigError

PAPER_TOKENS = 13
PAPER_LAYERS = (24, 12, 6)
"""Layers whose cost the DeeR paper states as 31.2, 15.6 and 7.8 GFLOPs."""


@dataclass(frozen=True)
class MemoryCost:
    """Weights and activations in one precision, in GiB (2^30 bytes); libraries and workspaces come on top."""

    precision: str
    weights_gib: float
    activations_gib: float


@dataclass(frozen=True)
class ExitCost:
    """One step that stops at an exit, in 1e9 multiply-accumulates (MAC).

    Attributes:
        exit_index, exit_layer: of the exit.
        vision_gmac, resampler_gmac: of all views.
        llm_gmac: layers up to the exit.
        head_gmac: one run of the action head.
        head_runs: when every exit up to this one is checked, the one before the first included.
        total_gmac: of all parts with one run of the head.
        checked_gmac: the same with `head_runs` runs.
        parameters: that must be loaded.
        memory: in each precision of `precision.PRECISIONS`.
    """

    exit_index: int
    exit_layer: int
    vision_gmac: float
    resampler_gmac: float
    llm_gmac: float
    head_gmac: float
    head_runs: int
    total_gmac: float
    checked_gmac: float
    parameters: int
    memory: tuple[MemoryCost, ...]


@dataclass(frozen=True)
class CostTable:
    """Costs of a policy at every exit, for an instruction of `tokens` tokens (prompt markers included)."""

    policy: str
    tokens: int
    exits: tuple[ExitCost, ...]
    relation_to_paper: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def cost_table(config: DeerConfig, tokens: int | None = None) -> CostTable:
    """Costs counted from a configuration alone; no weights are needed.

    Args:
        config: of the policy.
        tokens: length of the instruction; None takes the policy's reference length.

    Raises:
        ConfigError: if the policy can't take so many tokens.
    """
    language = config.language
    tokens = language.reference_tokens if tokens is None else tokens
    if not 1 <= tokens <= language.max_tokens:
        raise ConfigError(f"tokens is {tokens}; {config.name} takes 1 to {language.max_tokens}")
    costs = CostModel(config)
    exits = tuple(_exit_cost(costs, index, tokens) for index in range(len(language.exit_layers)))
    return CostTable(config.name, tokens, exits, relation_to_paper())


def relation_to_paper() -> str:
    """How the figures of the DeeR paper come about, in numbers of ours."""
    costs = CostModel(openflamingo_3b())
    layer = costs.layer_mac(0, PAPER_TOKENS) / GIGA
    printed = round(layer, 1)
    claims = " / ".join(f"{layers * printed:.1f}" for layers in PAPER_LAYERS)
    exact = " / ".join(f"{layers * layer:.1f}" for layers in PAPER_LAYERS)
    vision = (costs.vision_mac + costs.resampler_mac) / GIGA
    depths = " / ".join(map(str, PAPER_LAYERS))
    return (
        f"The paper's {claims} GFLOPs are {depths} language model layers of OpenFlamingo-3B times {printed}: the "
        f"{layer:.3f} GMAC of one layer at {PAPER_TOKENS} tokens, rounded up; exactly it is {exact} GMAC. They are "
        f"MACs (double them for floating point operations) of the language model alone: vision and resampler add "
        f"{vision:.1f} GMAC to every step, and each run of the head {costs.head_mac / GIGA:.3f}."
    )


def _exit_cost(costs: CostModel, index: int, tokens: int) -> ExitCost:
    head_runs = index + 2
    model = costs.empty_model(index)
    return ExitCost(
        exit_index=index,
        exit_layer=costs.config.language.exit_layers[index],
        vision_gmac=costs.vision_mac / GIGA,
        resampler_gmac=costs.resampler_mac / GIGA,
        llm_gmac=costs.llm_gmac(index, tokens),
        head_gmac=costs.head_mac / GIGA,
        head_runs=head_runs,
        total_gmac=costs.total_gmac(index, tokens),
        checked_gmac=costs.total_gmac(index, tokens, head_runs),
        parameters=costs.parameters(index),
        memory=tuple(_memory(model, costs.activations(tokens), precision) for precision in PRECISIONS.values()),
    )


def _memory(model: DeerModel, activations: int, precision: Precision) -> MemoryCost:
    weights = Storage(precision, model).bytes
    return MemoryCost(precision.name, weights / GIB, activations * precision.dtype.itemsize / GIB)
