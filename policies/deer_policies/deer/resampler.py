"""Perceiver resampler: learned latents attend to the tokens of one view (Flamingo, arXiv 2204.14198, section 2.1)."""

from __future__ import annotations

import torch
from torch import nn

from deer_policies.deer.attention import FeedForward, attend, split_heads
from deer_policies.deer.config import ResamplerConfig
from deer_policies.deer.landmark_tokens import LandmarkTokens


class ResamplerLayer(nn.Module):
    """Latents attend to the view's tokens and to themselves, then pass a feed-forward network."""

    def __init__(self, dim: int, config: ResamplerConfig, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm_tokens = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.feed_forward = FeedForward(dim, config.mlp_ratio)

    def forward(self, tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """tokens (batch, tokens, dim), latents (batch, latents, dim) -> latents of the same shape."""
        normed = self.norm_latents(latents)
        k, v = self.to_kv(torch.cat([self.norm_tokens(tokens), normed], dim=1)).chunk(2, dim=-1)
        q = split_heads(self.to_q(normed), self.heads)
        attended = attend(q, split_heads(k, self.heads), split_heads(v, self.heads), fused=self.fused)
        latents = latents + self.to_out(attended.transpose(1, 2).flatten(2))
        return latents + self.feed_forward(latents)


class Resampler(nn.Module):
    """Tokens of one view -> a fixed number of tokens; the same weights serve every view."""

    def __init__(self, dim: int, config: ResamplerConfig, side: int, fused: bool = True) -> None:
        """Args:
        dim: of the tokens.
        config: sizes.
        side: patches along each edge of the view.
        fused: whether attention may run fused.
        """
        super().__init__()
        self.landmarks = LandmarkTokens(dim, side, config.landmarks) if config.landmarks else None
        self.latents = nn.Parameter(torch.randn(config.latents, dim))
        self.layers = nn.ModuleList(ResamplerLayer(dim, config, fused) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, dim) -> (batch, landmarks + latents, dim)."""
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(tokens, latents)
        latents = self.norm(latents)
        return latents if self.landmarks is None else torch.cat([self.landmarks(tokens), latents], dim=1)
