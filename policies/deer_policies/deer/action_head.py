"""Recurrent action head: pooled features of one step become an action or several, and the next state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.config import ENCODED_PROPRIOCEPTION, HeadConfig
from deer_policies.interfaces import POSE_SIZE

EULER = slice(3, 6)


@dataclass(frozen=True)
class HeadState:
    """State of the LSTM stack: `hidden` and `cell`, each (layers, batch, hidden)."""

    hidden: torch.Tensor
    cell: torch.Tensor

    def detached(self) -> HeadState:
        """The same values without their history of gradients."""
        return HeadState(self.hidden.detach(), self.cell.detach())

    def kept(self, keep: torch.Tensor) -> HeadState:
        """State with the samples where `keep` (batch,) is False set back to the start of an episode."""
        factor = keep.to(self.hidden.dtype)[None, :, None]
        return HeadState(self.hidden * factor, self.cell * factor)


# An exported head takes and gives the two tensors.
torch.export.register_dataclass(HeadState, serialized_type_name="deer_policies.HeadState")


def encoded_proprioception(proprioception: torch.Tensor) -> torch.Tensor:
    """Angles, which wrap at pi, become sines, then cosines, at the end: (..., 15) -> (..., 18)."""
    angles = proprioception[..., EULER]
    rest = (proprioception[..., : EULER.start], proprioception[..., EULER.stop :])
    return torch.cat([*rest, angles.sin(), angles.cos()], dim=-1)


class ProprioceptionEncoder(nn.Module):
    """Normalises the encoded robot state, so that small turns count as much as small moves, and embeds it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.set_constants()
        self.layers = nn.Sequential(
            nn.Linear(ENCODED_PROPRIOCEPTION, config.proprioception_dim),
            nn.ReLU(),
            nn.Linear(config.proprioception_dim, config.proprioception_dim),
            nn.LayerNorm(config.proprioception_dim),
        )

    def set_constants(self) -> None:
        """Takes mean and standard deviation from the configuration; weights don't hold them."""
        self.register_buffer("mean", torch.tensor(self.config.proprioception_mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.config.proprioception_std), persistent=False)

    def forward(self, proprioception: torch.Tensor) -> torch.Tensor:
        """(batch, window, 15) as `Observation` has it -> (batch, window, proprioception_dim)."""
        return self.layers((encoded_proprioception(proprioception) - self.mean) / self.std)


def _mlp(inputs: int, config: HeadConfig, outputs: int) -> nn.Sequential:
    layerwise = config.dropout_mode == "layerwise"
    layers: list[nn.Module] = []
    for size in config.mlp_dims:
        layers += [
            nn.Dropout(config.mlp_dropout if layerwise else 0.0),
            nn.Linear(inputs, size),
            nn.LayerNorm(size),
            nn.ReLU(),
        ]
        inputs = size
    return nn.Sequential(*layers, nn.Dropout(config.mlp_dropout), nn.Linear(inputs, outputs))


class ActionHead(nn.Module):
    """LSTMs with LayerNorm on their outputs, then a pose and a gripper network side by side (DeeR's decoder)."""

    def __init__(self, feature_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.proprioception = ProprioceptionEncoder(config) if config.use_proprioception else None
        sizes = [feature_dim + config.proprioception_dim] + [config.lstm_hidden] * (config.lstm_layers - 1)
        self.lstm = nn.ModuleList(nn.LSTM(size, config.lstm_hidden, batch_first=True) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(config.lstm_hidden) for _ in sizes)
        self.pose = _mlp(config.lstm_hidden, config, POSE_SIZE * config.horizon)
        self.gripper = _mlp(config.lstm_hidden, config, config.horizon)

    def initial_state(self, batch: int) -> HeadState:
        """State at the start of an episode: zeros."""
        weight = cast(nn.LayerNorm, self.norms[0]).weight
        zeros = weight.new_zeros(self.config.lstm_layers, batch, self.config.lstm_hidden)
        return HeadState(zeros, zeros)

    def forward(
        self, features: torch.Tensor, proprioception: torch.Tensor | None = None, state: HeadState | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, HeadState]:
        """Runs over a window, one step at inference.

        Args:
            features: (batch, window, dim) pooled features.
            proprioception: (batch, window, 15); needed if the configuration has it, ignored otherwise.
            state: before the first step; None for the start of an episode.

        Returns:
            poses (batch, window, horizon * 6) in [-1, 1], one action after the other; gripper logits (batch, window,
            horizon), positive for open; state after the last step.
        """
        x = features.to(cast(nn.LayerNorm, self.norms[0]).weight.dtype)
        if self.proprioception is not None:
            if proprioception is None:
                raise ValueError("this action head needs the proprioception")
            x = torch.cat([x, self.proprioception(proprioception).to(x.dtype)], dim=-1)
        if state is None:
            state = self.initial_state(len(features))
        run = self._one_step if x.shape[1] == 1 else self._window
        hidden, cell = [], []
        for index, norm in enumerate(self.norms):
            x, h, c = run(index, x, state.hidden[index], state.cell[index])
            hidden.append(h)
            cell.append(c)
            x = norm(x)
            if index < len(self.norms) - 1:
                x = F.dropout(x, self.config.lstm_dropout, self.training)
        return self.pose(x).tanh(), self.gripper(x), HeadState(torch.stack(hidden), torch.stack(cell))

    def _window(
        self, index: int, x: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        output, (h, c) = self.lstm[index](x, (hidden[None].to(x.dtype), cell[None].to(x.dtype)))
        return output, h[0], c[0]

    def _one_step(
        self, index: int, x: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The LSTM equations written out: faster than the fused kernel for one step, and any engine can run it."""
        lstm: Any = self.lstm[index]
        gates = F.linear(x[:, 0], lstm.weight_ih_l0, lstm.bias_ih_l0) + F.linear(
            hidden, lstm.weight_hh_l0, lstm.bias_hh_l0
        )
        i, f, g, o = gates.chunk(4, dim=-1)
        c = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h[:, None], h, c
