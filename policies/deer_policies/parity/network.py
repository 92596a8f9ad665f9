"""Replays of the network: prompt, images, vision tokens, resampler, hidden states, pooled features."""

from __future__ import annotations

import tokenizers
import torch
import torch.nn.functional as F

from deer_policies.deer.preprocess import stack_views
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.parity.comparison import Comparison
from deer_policies.parity.recording import Recording

PADDED = r"hidden_b(\d+)_padded"
"""Keys of the hidden states of padded batches, with the size of the batch."""


def prompt(recording: Recording, found: Comparison) -> None:
    """Texts -> prompts -> token ids and mask, with the recorded vocabulary."""
    vocabulary = {token: recording.setting(f"vocab/{token}") for token in recording.below("vocab")}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer(core.to_str(), recording.config.language.max_tokens, recording.config.lowercase)
    texts = [str(text) for text in recording.array("texts")]
    for samples in _batches(recording):
        ids, mask = tokenizer.encode_batch(texts[:samples])
        found.same(f"ids{samples}", ids, recording.array(f"ids{samples}"))
        found.same(f"mask{samples}", mask, recording.array(f"mask{samples}"))


def preprocessing(recording: Recording, found: Comparison) -> None:
    """Camera images -> resized and normalised."""
    for step, recorded in enumerate(recording.images):
        raw = recording.array("raw_rgb")[step], recording.array("raw_grip")[step]
        views = recording.model.normalised(stack_views(*raw, recording.config.preprocess))
        found.near("rgb", views[0], recorded[0])
        found.near("grip", views[1], recorded[1])


def vision_tokens(recording: Recording, found: Comparison) -> None:
    """Images -> patch tokens."""
    tokens = recording.model.vision(recording.tensor("rgb"))
    found.near("clip_tokens_rgb", tokens, recording.array("clip_tokens_rgb"))


def resampler(recording: Recording, found: Comparison) -> None:
    """Recorded patch tokens -> latents of the static camera; images -> latents of both cameras."""
    latents = recording.model.resampler(recording.tensor("clip_tokens_rgb"))
    found.near("perceiver_rgb", latents[:, None], recording.array("perceiver_rgb"))
    media = recording.model.media(recording.images[:1])
    found.near("vision_x", media[:, None], recording.array("vision_x"))


def hidden_states(recording: Recording, found: Comparison) -> None:
    """Text and the recorded latents -> the output of every layer, and of the final norm where that was recorded."""
    states = recording.layer_outputs(recording.text(1), recording.tensor("vision_x")[0])
    ours, recorded = _matched(recording, states, recording.tensor("hidden_b1"))
    found.near("hidden_b1", ours, recorded)
    if recording.has("n_hidden_states"):
        found.same("n_hidden_states", len(ours), recording.setting("n_hidden_states"))


def padded_batch(recording: Recording, found: Comparison) -> None:
    """Images and texts of different lengths -> the output of every layer, padded positions included."""
    for key, samples in _padded(recording):
        media = recording.model.media(recording.images[:samples])
        states = recording.layer_outputs(recording.text(samples), media)
        found.near(key, *_matched(recording, states, recording.tensor(key)))


def pooled_features(recording: Recording, found: Comparison) -> None:
    """Images and text -> the feature of each exit: over padding as the release has it, and without as we have it."""
    layers = [recording.exit_layers[0] - 1, *recording.exit_layers]
    for key, samples in [("hidden_b1", 1), *_padded(recording)]:
        text, recorded = recording.text(samples), recording.tensor(key)[layers]
        real = text.mask[:, :, None]
        for name, model, pooled in (
            ("official", recording.model, recorded.amax(2)),
            ("default", recording.default_model, recorded.masked_fill(~real, float("-inf")).amax(2)),
        ):
            media = model.media(recording.images[:samples])
            features = torch.stack(list(model.exit_features(text, media)))
            found.near(f"{key} ({name} pool)", features, pooled)


def _matched(recording: Recording, states: torch.Tensor, recorded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The states with, where it was recorded as one more, the last one through the final norm."""
    if len(recorded) > len(states) and recording.final_norm is not None:
        states = torch.cat([states, F.layer_norm(states[-1:], states.shape[-1:], recording.final_norm)])
    return states, recorded


def _batches(recording: Recording) -> list[int]:
    """Sizes of the batches of texts that were recorded."""
    return sorted(int(match[1]) for match in recording.top(r"ids(\d+)"))


def _padded(recording: Recording) -> list[tuple[str, int]]:
    """Keys of the hidden states of padded batches, with the size of the batch."""
    return [(match[0], int(match[1])) for match in recording.top(PADDED)]
