"""The official model's formulas once more, by parameter name and without our classes: what synthetic recordings hold.

Written from the description of the release, for layouts that no recording of it is at hand for. It computes in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

State = tuple[torch.Tensor, torch.Tensor]
BLOCK = "lang_encoder.transformer.blocks"
WORDS = ("open", "the", "drawer", "push", "door", "left")
VOCABULARY = ("<|endoftext|>", "<unk>", *WORDS, "<|endofchunk|>", "<image>", "<PAD>")


@dataclass(frozen=True)
class Layout:
    """Sizes of a tiny official model."""

    llm_name: str
    cross_every: int
    kept_layers: int
    exit_interval: int = 2
    qk_norm: bool = False
    block_names: tuple[str, str, str] = ("norm_", "ffn.up_proj", "ffn.down_proj")
    final_norm: str | None = "norm_f"
    mlp_dims: tuple[int, ...] = (24, 16)
    lstm_layers: int = 4
    image: int = 28
    patch: int = 14
    width: int = 16
    latents: int = 64
    resampler_layers: int = 6
    dim: int = 32
    heads: int = 4
    hidden: int = 20
    vocabulary: tuple[str, ...] = VOCABULARY

    @property
    def exits(self) -> list[int]:
        last = self.kept_layers - 1
        return [*range(self.exit_interval - 1, last, self.exit_interval), last]

    @property
    def heads_of_exits(self) -> list[str]:
        return [*(f"lm_exit_modules.{k}" for k in range(len(self.exits) - 1)), "lm_head"]


NINE = Layout("mpt_9b", cross_every=4, kept_layers=8)
"""What tells the 9B layout from the 3B one: no qk-norm, cross-attention before every fourth layer, other names."""
SIX_HEADS = replace(NINE, cross_every=3, kept_layers=11, exit_interval=3, heads=6, dim=48, lstm_layers=3, image=56)
"""A number of heads that is no power of two, and a last exit that is not a whole interval behind the one before."""
ODD = Layout(
    "mpt_dolly_3b",
    cross_every=2,
    kept_layers=7,
    exit_interval=3,
    qk_norm=True,
    block_names=("ln_", "mlp.mlp_up", "mlp.mlp_down"),
    final_norm="ln_f",
    mlp_dims=(24, 16, 12),
    lstm_layers=2,
    image=42,
    latents=10,
    resampler_layers=2,
    heads=2,
)
"""Other sizes of everything, exits that are not evenly spaced."""


def random_weights(layout: Layout, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Every parameter drawn at random, gates included, so that nothing hides."""
    weights: dict[str, torch.Tensor] = {}

    def matrix(name: str, *shape: int) -> None:
        fan_in = int(torch.tensor(shape[1:]).prod())
        weights[name] = torch.randn(shape, generator=generator) / fan_in**0.5

    def norm(name: str, size: int, bias: bool = True) -> None:
        weights[f"{name}.weight"] = 1.0 + 0.2 * torch.randn(size, generator=generator)
        if bias:
            weights[f"{name}.bias"] = 0.1 * torch.randn(size, generator=generator)

    def vector(name: str, *shape: int, scale: float = 0.1) -> None:
        weights[name] = scale * torch.randn(shape, generator=generator)

    def attention(name: str, dim: int, media: int) -> None:
        matrix(f"{name}.to_q.weight", 512, dim)
        matrix(f"{name}.to_kv.weight", 1024, media)
        matrix(f"{name}.to_out.weight", dim, 512)

    def feed_forward(name: str, dim: int) -> None:
        norm(f"{name}.0", dim)
        matrix(f"{name}.1.weight", 4 * dim, dim)
        matrix(f"{name}.3.weight", dim, 4 * dim)

    v, width, dim = "vision_encoder.visual", layout.width, layout.dim
    matrix(f"{v}.conv1.weight", width, 3, layout.patch, layout.patch)
    vector(f"{v}.class_embedding", width, scale=1.0)
    vector(f"{v}.positional_embedding", (layout.image // layout.patch) ** 2 + 1, width, scale=1.0)
    matrix(f"{v}.proj", width, 8)
    for name in ("ln_pre", "ln_post"):
        norm(f"{v}.{name}", width)
    for k in range(2):
        block = f"{v}.transformer.resblocks.{k}"
        for name, rows, columns in (
            ("attn.in_proj_", 3 * width, width), ("attn.out_proj.", width, width),
            ("mlp.c_fc.", 4 * width, width), ("mlp.c_proj.", width, 4 * width),
        ):  # fmt: skip
            matrix(f"{block}.{name}weight", rows, columns)
            vector(f"{block}.{name}bias", rows)
        norm(f"{block}.ln_1", width)
        norm(f"{block}.ln_2", width)
    vector("perceiver.latents", layout.latents, width, scale=1.0)
    norm("perceiver.norm", width)
    for k in range(layout.resampler_layers):
        norm(f"perceiver.layers.{k}.0.norm_media", width)
        norm(f"perceiver.layers.{k}.0.norm_latents", width)
        attention(f"perceiver.layers.{k}.0", width, width)
        feed_forward(f"perceiver.layers.{k}.1", width)
    vector("lang_encoder.transformer.wte.weight", len(layout.vocabulary), dim, scale=1.0)
    norm(f"lang_encoder.transformer.{layout.final_norm}", dim, bias=False)
    norm_name, up, down = layout.block_names
    for k in range(layout.kept_layers):
        if (k + 1) % layout.cross_every == 0:
            cross = f"{BLOCK}.{k}.gated_cross_attn_layer"
            norm(f"{cross}.attn.norm", dim)
            attention(f"{cross}.attn", dim, width)
            feed_forward(f"{cross}.ff", dim)
            vector(f"{cross}.attn_gate", 1, scale=1.0)
            vector(f"{cross}.ff_gate", 1, scale=1.0)
        block = f"{BLOCK}.{k}.decoder_layer"
        matrix(f"{block}.attn.Wqkv.weight", 3 * dim, dim)
        matrix(f"{block}.attn.out_proj.weight", dim, dim)
        matrix(f"{block}.{up}.weight", 4 * dim, dim)
        matrix(f"{block}.{down}.weight", dim, 4 * dim)
        for name in (f"{norm_name}1", f"{norm_name}2", *(("attn.q_ln", "attn.k_ln") if layout.qk_norm else ())):
            norm(f"{block}.{name}", dim, bias=False)
    for head in (*layout.heads_of_exits, "extra_exit"):
        size = dim
        for k in range(layout.lstm_layers):
            for kind, columns in (("ih", size), ("hh", layout.hidden)):
                matrix(f"{head}.rnn.layers.{3 * k}.weight_{kind}_l0", 4 * layout.hidden, columns)
                vector(f"{head}.rnn.layers.{3 * k}.bias_{kind}_l0", 4 * layout.hidden)
            norm(f"{head}.rnn.layers.{3 * k + 1}", layout.hidden)
            size = layout.hidden
        for network, outputs in (("actions", 6), ("gripper", 1)):
            size = layout.hidden
            for k, rows in enumerate((*layout.mlp_dims, outputs)):
                matrix(f"{head}.{network}.mlp.{4 * k + 1}.weight", rows, size)
                vector(f"{head}.{network}.mlp.{4 * k + 1}.bias", rows)
                if k < len(layout.mlp_dims):
                    norm(f"{head}.{network}.mlp.{4 * k + 2}", rows)
                size = rows
    return weights


class OfficialFormulas:
    """Forward pass of the release, stage by stage."""

    def __init__(self, layout: Layout, weights: dict[str, torch.Tensor]) -> None:
        self.layout = layout
        self.w: dict[str, Any] = {name: tensor.double() for name, tensor in weights.items()}

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.w[f"{name}.weight"] + self.w.get(f"{name}.bias", 0.0)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w[f"{name}weight"].T + self.w.get(f"{name}bias", 0.0)

    @staticmethod
    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, bias: Any = 0.0) -> torch.Tensor:
        size = q.shape[-1] // heads
        q, k, v = (part.unflatten(-1, (heads, size)) for part in (q, k, v))
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) / size**0.5 + bias).softmax(-1)
        return torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)

    def feed_forward(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.linear(f"{name}.3.", F.gelu(self.linear(f"{name}.1.", self.norm(f"{name}.0", x))))

    def vision(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, image, image) -> patch tokens of the last layer, class token dropped."""
        v, patch = "vision_encoder.visual", self.layout.patch
        patches = F.unfold(images.double(), patch, stride=patch).transpose(1, 2)
        x = patches @ self.w[f"{v}.conv1.weight"].flatten(1).T
        x = (
            torch.cat([self.w[f"{v}.class_embedding"].expand(len(x), 1, -1), x], 1)
            + self.w[f"{v}.positional_embedding"]
        )
        x = self.norm(f"{v}.ln_pre", x)
        for k in range(2):
            block = f"{v}.transformer.resblocks.{k}"
            q, key, value = self.linear(f"{block}.attn.in_proj_", self.norm(f"{block}.ln_1", x)).chunk(3, -1)
            x = x + self.linear(f"{block}.attn.out_proj.", self.attention(q, key, value, heads=2))
            hidden = self.linear(f"{block}.mlp.c_fc.", self.norm(f"{block}.ln_2", x))
            x = x + self.linear(f"{block}.mlp.c_proj.", hidden / (1.0 + (-1.702 * hidden).exp()))
        return x[:, 1:]

    def resampler(self, tokens: torch.Tensor) -> torch.Tensor:
        latents = self.w["perceiver.latents"].expand(len(tokens), -1, -1)
        for k in range(self.layout.resampler_layers):
            layer = f"perceiver.layers.{k}"
            normed = self.norm(f"{layer}.0.norm_latents", latents)
            both = torch.cat([self.norm(f"{layer}.0.norm_media", tokens.double()), normed], 1)
            key, value = self.linear(f"{layer}.0.to_kv.", both).chunk(2, -1)
            attended = self.attention(self.linear(f"{layer}.0.to_q.", normed), key, value, heads=8)
            latents = latents + self.linear(f"{layer}.0.to_out.", attended)
            latents = latents + self.feed_forward(f"{layer}.1", latents)
        return self.norm("perceiver.norm", latents)

    def media(self, rgb: torch.Tensor, grip: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.resampler(self.vision(rgb)), self.resampler(self.vision(grip))], 1)

    def slopes(self, heads: int) -> list[float]:
        """MPT-1B's are a geometric series; MPT-7B's skip in that of the next power of two, and then fill up."""
        if self.layout.qk_norm:
            return [2.0 ** (-8.0 * head / heads) for head in range(1, heads + 1)]
        power = next(2**k for k in range(9) if 2**k >= heads)
        series = [2.0 ** (-8.0 * head / power) for head in range(1, power + 1)]
        return series if power == heads else (series[1::2] + series[::2])[:heads]

    def hidden_states(self, ids: torch.Tensor, mask: torch.Tensor, media: torch.Tensor) -> torch.Tensor:
        """(layers, batch, tokens, dim), behind every layer."""
        layout, tokens = self.layout, ids.shape[1]
        slopes = torch.tensor(self.slopes(layout.heads), dtype=torch.float64)
        distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
        hidden = (distance < 0)[None, None] | ~mask.bool()[:, None, None, :]
        bias = (-slopes[:, None, None] * distance)[None].masked_fill(hidden, -torch.inf)
        norm_name, up, down = layout.block_names
        x, states = self.w["lang_encoder.transformer.wte.weight"][ids], []
        for k in range(layout.kept_layers):
            cross = f"{BLOCK}.{k}.gated_cross_attn_layer"
            if f"{cross}.attn_gate" in self.w:
                key, value = self.linear(f"{cross}.attn.to_kv.", media).chunk(2, -1)
                query = self.linear(f"{cross}.attn.to_q.", self.norm(f"{cross}.attn.norm", x))
                attended = self.linear(f"{cross}.attn.to_out.", self.attention(query, key, value, heads=8))
                x = x + self.w[f"{cross}.attn_gate"].tanh() * attended
                x = x + self.w[f"{cross}.ff_gate"].tanh() * self.feed_forward(f"{cross}.ff", x)
            block = f"{BLOCK}.{k}.decoder_layer"
            q, key, value = self.linear(f"{block}.attn.Wqkv.", self.norm(f"{block}.{norm_name}1", x)).chunk(3, -1)
            if layout.qk_norm:
                q, key = self.norm(f"{block}.attn.q_ln", q), self.norm(f"{block}.attn.k_ln", key)
            x = x + self.linear(f"{block}.attn.out_proj.", self.attention(q, key, value, layout.heads, bias))
            grown = F.gelu(self.linear(f"{block}.{up}.", self.norm(f"{block}.{norm_name}2", x)))
            x = x + self.linear(f"{block}.{down}.", grown)
            states.append(x)
        return torch.stack(states)

    def head(self, name: str, feature: torch.Tensor, state: State | None) -> tuple[torch.Tensor, torch.Tensor, State]:
        """One step: feature (batch, dim) -> pose (batch, 6), logit (batch, 1), state (layers, batch, hidden) twice."""
        if state is None:
            zeros = torch.zeros(self.layout.lstm_layers, len(feature), self.layout.hidden, dtype=torch.float64)
            state = (zeros, zeros)
        x, hidden, cells = feature, [], []
        for k in range(self.layout.lstm_layers):
            layer = f"{name}.rnn.layers.{3 * k}"
            gates = x @ self.w[f"{layer}.weight_ih_l0"].T + self.w[f"{layer}.bias_ih_l0"]
            gates = gates + state[0][k] @ self.w[f"{layer}.weight_hh_l0"].T + self.w[f"{layer}.bias_hh_l0"]
            i, f, g, o = gates.chunk(4, -1)
            cells.append(f.sigmoid() * state[1][k] + i.sigmoid() * g.tanh())
            hidden.append(o.sigmoid() * cells[-1].tanh())
            x = self.norm(f"{name}.rnn.layers.{3 * k + 1}", hidden[-1])
        outputs = []
        for network in ("actions", "gripper"):
            y = x
            for k in range(len(self.layout.mlp_dims)):
                y = self.norm(f"{name}.{network}.mlp.{4 * k + 2}", self.linear(f"{name}.{network}.mlp.{4 * k + 1}.", y))
                y = y.relu()
            outputs.append(self.linear(f"{name}.{network}.mlp.{4 * len(self.layout.mlp_dims) + 1}.", y))
        return outputs[0].tanh(), outputs[1], (torch.stack(hidden), torch.stack(cells))

    def window(self, name: str, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A window from zero state: features (batch, window, dim) -> poses, logits."""
        state, poses, logits = None, [], []
        for feature in features.unbind(1):
            pose, logit, state = self.head(name, feature, state)
            poses.append(pose)
            logits.append(logit)
        return torch.stack(poses, 1), torch.stack(logits, 1)
