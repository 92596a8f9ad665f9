"""Gated cross-attention from text to visual latents (Flamingo, arXiv 2204.14198, section 2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, tokens, heads * head_dim) -> (batch, heads, tokens, head_dim)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None = None, fused: bool = True
) -> torch.Tensor:
    """Softmax attention.

    Args:
        q, k, v: (batch, heads, tokens, head_dim).
        bias: broadcastable to the logits.
        fused: one kernel for all; otherwise the products are written out in the released code's order, so that they
            are rounded as there.

    Returns:
        Tensor of the shape of q.
    """
    # On the CPU the fused kernel's bfloat16 gradient is 8 (36 tokens) to 11 (12 tokens) times slower than this.
    if not fused or (q.requires_grad and q.device.type == "cpu"):
        logits = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        if bias is not None:
            logits = logits + bias
        return logits.softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))


class FeedForward(nn.Module):
    """LayerNorm, then two linear layers without biases and a GELU between."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, ratio * dim, bias=False)
        self.down = nn.Linear(ratio * dim, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim) -> (..., dim)."""
        return self.down(F.gelu(self.up(self.norm(x))))


class GatedCrossAttention(nn.Module):
    """Adds what the text reads from the image, scaled by tanh of a learned gate; the image is not normalised here.

    The prompt holds one image, in front, so every text position sees all latents and no mask is needed.
    """

    def __init__(
        self,
        dim: int,
        media_dim: int,
        heads: int,
        head_dim: int,
        mlp_ratio: int,
        gate_init: float,
        fused: bool = True,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.fused = fused
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(media_dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.attention_gate = nn.Parameter(torch.tensor([gate_init]))
        self.feed_forward = FeedForward(dim, mlp_ratio)
        self.feed_forward_gate = nn.Parameter(torch.tensor([gate_init]))

    def forward(self, x: torch.Tensor, media: torch.Tensor) -> torch.Tensor:
        """x (batch, tokens, dim), media (batch, latents, media_dim) -> (batch, tokens, dim)."""
        k, v = self.to_kv(media).chunk(2, dim=-1)
        q = split_heads(self.to_q(self.norm(x)), self.heads)
        attended = attend(q, split_heads(k, self.heads), split_heads(v, self.heads), fused=self.fused)
        x = x + self.to_out(attended.transpose(1, 2).flatten(2)) * self.attention_gate.tanh()
        return x + self.feed_forward(x) * self.feed_forward_gate.tanh()
