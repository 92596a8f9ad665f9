"""Writes a folder of the golden form from `official_formulas`: the release's loops, once more and plainly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from deer_policies.deer.config import CLIP_MEAN, CLIP_STD
from tests.policies.official_formulas import Layout, OfficialFormulas, random_weights

STEPS, WINDOW, STAGE = 5, 6, 2
TEXTS = ("open the drawer", "push the left door", "open door")


def write_recording(folder: Path, layout: Layout, seed: int) -> dict[str, np.ndarray]:
    """Writes weights.safetensors, io.npz and stats.json, and returns the arrays."""
    generator = torch.Generator().manual_seed(seed)
    weights = random_weights(layout, generator)
    arrays = _Recorder(layout, weights, generator).arrays
    folder.mkdir(parents=True)
    save_file(weights, folder / "weights.safetensors")
    write_arrays(folder, arrays)
    return arrays


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(folder / "io.npz", **arrays)
    stats: dict[str, Any] = {}
    for key, value in arrays.items():
        *path, last = key.split("/")
        inner = stats
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = {"shape": list(value.shape)}
    (folder / "stats.json").write_text(json.dumps(stats))


class _Recorder:
    def __init__(self, layout: Layout, weights: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        self.layout, self.generator = layout, generator
        self.official = OfficialFormulas(layout, weights)
        self.norm = weights.get("lang_encoder.transformer.norm_f.weight")
        self.arrays: dict[str, np.ndarray] = {}
        self.settings()
        self.network()
        self.runs()
        self.offline()

    def put(self, key: str, value: Any) -> None:
        array = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        self.arrays[key] = array.astype(np.float32) if array.dtype == np.float64 and array.ndim else array

    def settings(self) -> None:
        layout = self.layout
        for name, value in {
            "img": layout.image, "patch": layout.patch, "vis_width": layout.width, "vis_layers": 2, "vis_heads": 2,
            "d_model": layout.dim, "n_heads": layout.heads, "n_layers": 10, "early_exit_layer": layout.kept_layers - 1,
            "exit_interval": layout.exit_interval, "window": WINDOW, "head_hidden": layout.hidden,
            "lstm_layers": layout.lstm_layers, "mlp_hidden_layers": len(layout.mlp_dims), "exit_dropout": 0.4,
            "lstm_dropout": 0.3, "cross_attn_every": layout.cross_every, "llm_name": layout.llm_name,
        }.items():  # fmt: skip
            self.put(f"cfg/{name}", value)
        for number, token in enumerate(layout.vocabulary):
            self.put(f"vocab/{token}", number)

    def tokens(self, texts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        number = {token: k for k, token in enumerate(self.layout.vocabulary)}
        prompts = [("<image>", *text.split(), "<|endofchunk|>", "<|endoftext|>") for text in texts]
        rows = [[number[word] for word in prompt] for prompt in prompts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [number["<PAD>"]] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])

    def preprocessed(self, raw: np.ndarray) -> torch.Tensor:
        size = (self.layout.image, self.layout.image)
        resized = np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in raw])
        return torch.from_numpy((resized / 255.0 - CLIP_MEAN) / CLIP_STD).permute(0, 3, 1, 2).float()

    def network(self) -> None:
        self.put("texts", TEXTS)
        for key, size in (("rgb", 40), ("grip", 20)):
            raw = torch.randint(0, 256, (STEPS, size, size, 3), generator=self.generator, dtype=torch.uint8)
            self.put(f"raw_{key}", raw)
            self.put(key, self.preprocessed(raw.numpy()))
        self.rgb, self.grip = (torch.from_numpy(self.arrays[key]) for key in ("rgb", "grip"))
        for samples in (1, 3):
            ids, mask = self.tokens(TEXTS[:samples])
            self.put(f"ids{samples}", ids)
            self.put(f"mask{samples}", mask)
        patches = self.official.vision(self.rgb)
        self.put("clip_tokens_rgb", patches)
        self.put("perceiver_rgb", self.official.resampler(patches)[:, None])
        media = self.official.media(self.rgb, self.grip)
        self.put("vision_x", media[:1, None])
        ids, mask = self.tokens(TEXTS[:1])
        # (steps, layers, tokens, dim): what every run below sees.
        repeated = (part.expand(STEPS, -1) for part in (ids, mask))
        self.states = self.official.hidden_states(*repeated, media).transpose(0, 1)
        self.put("hidden_b1", self.listed(self.states[:1].transpose(0, 1)))
        self.put("n_hidden_states", len(self.arrays["hidden_b1"]))
        self.put("hidden_b3_padded", self.listed(self.official.hidden_states(*self.tokens(TEXTS), media[:3])))
        self.put("exit_ids", self.layout.exits)

    def listed(self, states: torch.Tensor) -> torch.Tensor:
        """The release's list of hidden states where nothing exits: MPT-7B's has the normed last one behind it."""
        return states if self.norm is None else torch.cat([states, self.normed(states[-1:])])

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        assert self.norm is not None
        return F.layer_norm(x, x.shape[-1:], self.norm.double())

    def runs(self) -> None:
        exits, last = self.layout.exits, self.layout.exits[-1]
        for layer in exits:
            self.run(f"static/{layer}", lambda step, distances, checked, layer=layer: checked == layer)
        cycle = [exits[step % len(exits)] for step in range(STEPS)]
        self.run("alternating", lambda step, distances, checked: checked == cycle[step])
        for layer, name in zip(exits, self.layout.heads_of_exits, strict=True):
            poses, logits = self.official.window(name, self.states[:3, layer].amax(1)[None])
            self.put(f"layerwise/{layer}/pose", poses[0])
            self.put(f"layerwise/{layer}/grip_prob", logits[0].sigmoid())
        self.run("dyn_never", lambda step, distances, checked: checked == last, deltas=True)
        seen = np.stack([self.arrays[f"dyn_never/deltas/{step}"] for step in range(STEPS)])
        limits = [*np.median(seen, axis=0)[:-1].tolist(), 1e5]

        def met(distances: list[float]) -> bool:
            return distances[-1] <= limits[len(distances) - 1]

        self.run("dyn", lambda step, distances, checked: met(distances), deltas=True)
        self.run("dyn_max4", lambda step, distances, checked: met(distances) or checked >= 3, deltas=True)
        self.run(f"dyn_stage{STAGE}", lambda step, distances, checked: met(distances), deltas=True, stage=STAGE)
        # Thresholds as low as the same exits allow: each equals a distance, and such a step exits there.
        runs = [found for key, found in self.arrays.items() if "/deltas/" in key and not key.startswith("dyn_never")]
        for position, limit in enumerate(limits[:-1]):
            below = [found[position] for found in runs if len(found) > position and found[position] <= limit]
            limits[position] = max(below, default=limit)
        self.arrays["dyn_thresholds"] = np.array(limits)

    def run(
        self, key: str, stops: Callable[[int, list[float], int], bool], deltas: bool = False, stage: int = 1
    ) -> None:
        """The release's loop; `stops` is asked at every exit with the distances of this step."""
        state, taken, poses, probabilities, actions = None, [], [], [], []
        for step in range(STEPS):

            def answer(layer: int, step: int = step, state: Any = state) -> torch.Tensor:
                return self.official.head("extra_exit", self.states[step, layer].amax(0)[None], state)[0][0]

            distances: list[float] = []
            for position, layer in enumerate(self.layout.exits):
                if step % stage:
                    if layer >= taken[-1]:
                        break
                    continue
                before = self.layout.exits[position - 1] if position else layer - 1
                distances.append(math.sqrt(float((answer(layer) - answer(before)).square().mean())))
                if stops(step, distances, layer):
                    break
            taken.append(layer)
            pose, logit, state = self.official.head("extra_exit", self.states[step, layer].amax(0)[None], state)
            poses.append(pose[0])
            probabilities.append(logit[0].sigmoid())
            actions.append([*pose[0].tolist(), 1.0 if logit > 0 else -1.0])
            if deltas:
                self.arrays[f"{key}/deltas/{step}"] = np.array(distances)
        self.put(f"{key}/pose", torch.stack(poses))
        self.put(f"{key}/grip_prob", torch.stack(probabilities))
        self.put(f"{key}/exit", taken)
        self.put(f"{key}/lstm_h", state[0])
        self.put(f"{key}/lstm_c", state[1])
        if deltas:
            self.arrays[f"{key}/env_action_fp16"] = np.array(actions, np.float16)

    def offline(self) -> None:
        exits, count = self.layout.exits, len(self.layout.exits)
        values = torch.rand(count, 200, generator=self.generator)
        self.put("solver_values", values)
        for case, (dist, ratio, max_layer, llm) in enumerate(
            (dist, ratio, max_layer, llm)
            for dist, ratio in (("exp", 1.0), ("exp", 1.5), ("gauss", 2.0), ("gamma", 3.0))
            for max_layer in (4, self.layout.kept_layers)
            for llm in ("mpt_dolly_3b", "mpt_9b")
        ):
            used = [layer for layer in exits if layer <= max_layer - 1]
            if len(used) < 2:
                continue
            for name, value in (("dist", dist), ("ratio", ratio), ("max_layer", max_layer), ("llm", llm)):
                self.put(f"solver/{case}/{name}", value)
            for layer, threshold in zip(used, solved(values, dist, ratio, len(used), llm), strict=True):
                self.put(f"solver/{case}/thresholds/{layer}", threshold)
        batch = 2
        for key in ("rgb", "grip"):
            shape = (batch, WINDOW, 3, self.layout.image, self.layout.image)
            self.put(f"train_batch/{key}", torch.randn(shape, generator=self.generator))
        ids, mask = self.tokens(TEXTS[1:])
        self.put("train_batch/ids", ids)
        self.put("train_batch/mask", mask)
        actions = torch.rand(batch, WINDOW, 7, generator=self.generator) * 2.0 - 1.0
        actions[..., 6] = actions[..., 6].sign()
        self.put("train_batch/actions", actions)
        rgb, grip = (torch.from_numpy(self.arrays[f"train_batch/{key}"]).flatten(0, 1) for key in ("rgb", "grip"))
        repeated = (part.repeat_interleave(WINDOW, 0) for part in (ids, mask))
        states = self.official.hidden_states(*repeated, self.official.media(rgb, grip))
        features = states.amax(2).unflatten(1, (batch, WINDOW))
        uniform = torch.randint(count, (batch, WINDOW), generator=self.generator)
        segments = torch.randint(count, (batch, 2), generator=self.generator)
        boundary = 2
        self.put("train_eval_mode/uniform_exit_index", uniform)
        self.put("train_eval_mode/segment_exit_index", segments)
        self.put("train_eval_mode/prev_len", boundary)
        drawn = torch.cat([segments[:, :1].expand(-1, boundary), segments[:, 1:].expand(-1, WINDOW - boundary)], 1)
        last = states[-1] if self.norm is None else self.normed(states[-1])
        inputs = {
            **{f"aux/{k}": (f"lm_exit_modules.{k}", features[layer]) for k, layer in enumerate(exits[:-1])},
            "last": ("lm_head", last.amax(1).unflatten(0, (batch, WINDOW))),
            "extra_uniform": ("extra_exit", self.mixed(features, uniform)),
            "extra_segment": ("extra_exit", self.mixed(features, drawn)),
        }
        huber, bce = [], []
        for key, (head, feature) in inputs.items():
            pose, logit = self.official.window(head, feature)
            for part, value in enumerate((pose, logit.sigmoid(), logit)):
                self.put(f"train_eval_mode/{key}/{part}", value)
            huber.append(F.smooth_l1_loss(pose, actions[..., :6].double()))
            label = (actions[..., 6:].double() + 1.0) / 2.0
            bce.append(-(label * logit.sigmoid().log() + (1.0 - label) * (-logit).sigmoid().log()).mean())
        self.put("train_losses/huber", torch.stack(huber))
        self.put("train_losses/bce", torch.stack(bce))
        self.put("train_losses/total", float(sum(huber) + 0.01 * sum(bce)))
        rows = []
        for step in range(WINDOW // 2 - 1, WINDOW - 1):
            history = self.mixed(features, uniform)[:, :step]
            answers = [
                self.official.window("extra_exit", torch.cat([history, features[layer][:, step : step + 1]], 1))[0][
                    :, -1
                ]
                for layer in (0, *exits)
            ]
            rows.append(torch.stack([(b - a).square().mean(-1).sqrt() for a, b in pairwise(answers)]))
        self.put("generate/rand_layer_indices", torch.tensor(exits)[uniform])
        self.put("generate/values", torch.stack(rows, -1).flatten(1))
        self.put("grad_norm_note", "of no use")

    def mixed(self, features: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        samples, steps = torch.meshgrid(torch.arange(len(drawn)), torch.arange(WINDOW), indexing="ij")
        return features[torch.tensor(self.layout.exits)[drawn], samples, steps]


def solved(values: torch.Tensor, dist: str, ratio: float, exits: int, llm: str) -> list[float]:
    """The release's solver: counts through the sorted samples."""
    k = np.arange(1, exits + 1, dtype=np.float64)
    probabilities = {
        "exp": ratio**k,
        "gauss": np.exp(-((k - 1 - ratio) ** 2) / 2.0),
        "gamma": k ** (ratio - 1.0) * np.exp(-k / 2.0) / (math.gamma(ratio) * 2.0**ratio),
    }[dist].astype(np.float32)
    if "mpt_9b" in llm:
        probabilities[0] = 0.0
    probabilities /= probabilities.sum()
    samples, gone, thresholds = values.shape[1], set[int](), []
    for row, probability in zip(values[: exits - 1].tolist(), probabilities, strict=False):
        threshold, count = -1e8, 0
        for index in sorted(range(samples), key=row.__getitem__):
            count += index not in gone
            if index not in gone and count == math.floor(np.float32(samples) * probability):
                threshold = row[index]
                break
        gone |= {index for index, value in enumerate(row) if value <= threshold}
        thresholds.append(threshold)
    return [*thresholds, 1e8]
