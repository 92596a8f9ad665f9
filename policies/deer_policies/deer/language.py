"""MPT decoder blocks: causal attention with ALiBi, no biases anywhere (MosaicML MPT-1B and MPT-7B)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from deer_policies.deer.attention import GatedCrossAttention, attend, split_heads
from deer_policies.deer.config import LanguageConfig


def alibi_slopes(heads: int, interleaved: bool = False) -> torch.Tensor:
    """Slopes of ALiBi (arXiv 2108.12409), one for each head: 2^(-8 (h+1) / heads).

    Args:
        heads: how many.
        interleaved: for a number that is not a power of two, every second slope of the next one that is, then those
            between (MPT-7B's code); otherwise the formula holds for any number (MPT-1B's).

    Returns:
        (heads,).
    """
    count = 1 << (heads - 1).bit_length() if interleaved else heads
    slopes = torch.exp2(-8.0 * torch.arange(1, count + 1) / count)
    return slopes if count == heads else torch.cat([slopes[1::2], slopes[::2]])[:heads]


def attention_bias(mask: torch.Tensor, slopes: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What is added to attention logits: ALiBi, causality, and no attention to padding.

    Args:
        mask: (batch, tokens) bool, True for real tokens.
        slopes: (heads,) from `alibi_slopes`.
        dtype: of the result.

    Returns:
        (batch, heads, tokens, tokens), -inf where attention is not allowed.
    """
    tokens = mask.shape[1]
    positions = torch.arange(1 - tokens, 1, device=mask.device)
    bias = (slopes.to(mask.device)[:, None] * positions)[None, :, None, :]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    allowed = causal & mask[:, None, None, :]
    return bias.masked_fill(~allowed, float("-inf")).to(dtype)


class DecoderBlock(nn.Module):
    """Pre-LN attention and feed-forward network of MPT."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, qk_norm: bool, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = fused
        self.norm_1 = nn.LayerNorm(dim, bias=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = nn.LayerNorm(dim, bias=False) if qk_norm else None
        self.k_norm = nn.LayerNorm(dim, bias=False) if qk_norm else None
        self.out = nn.Linear(dim, dim, bias=False)
        self.norm_2 = nn.LayerNorm(dim, bias=False)
        self.up = nn.Linear(dim, mlp_ratio * dim, bias=False)
        self.down = nn.Linear(mlp_ratio * dim, dim, bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """x (batch, tokens, dim), bias from `attention_bias` -> (batch, tokens, dim)."""
        q, k, v = self.qkv(self.norm_1(x)).chunk(3, dim=-1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (split_heads(part, self.heads) for part in (q.to(v.dtype), k.to(v.dtype), v))
        attended = attend(q, k, v, bias, self.fused)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class DecoderLayer(nn.Module):
    """A gated cross-attention, where the configuration has one, and the MPT block behind it."""

    def __init__(self, config: LanguageConfig, media_dim: int, index: int, fused: bool) -> None:
        super().__init__()
        self.cross_attention = (
            GatedCrossAttention(
                config.dim,
                media_dim,
                config.cross_attention_heads,
                config.cross_attention_head_dim,
                config.mlp_ratio,
                config.gate_init,
                fused,
            )
            if config.has_cross_attention(index)
            else None
        )
        self.block = DecoderBlock(config.dim, config.heads, config.mlp_ratio, config.qk_norm, fused)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, media: torch.Tensor) -> torch.Tensor:
        """x (batch, tokens, dim), media (batch, latents, media_dim) -> (batch, tokens, dim)."""
        if self.cross_attention is not None:
            x = self.cross_attention(x, media)
        return self.block(x, bias)
