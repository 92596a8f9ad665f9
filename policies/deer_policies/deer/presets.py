"""The named policy configurations."""

from __future__ import annotations

from collections.abc import Callable

from deer_policies.deer.config import (
    DeerConfig,
    HeadConfig,
    LanguageConfig,
    PreprocessConfig,
    ResamplerConfig,
    VisionConfig,
)
from deer_policies.errors import ConfigError


def deer_nano(vocabulary: int = 2048) -> DeerConfig:
    """The bundled policy: the whole mechanism, small enough for one CPU core; trained from scratch."""
    return DeerConfig(
        name="deer-nano",
        preprocess=PreprocessConfig(image_size=96),
        vision=VisionConfig(
            image_size=96,
            stem="conv",
            patch_size=8,
            stem_channels=(16, 32, 64, 96),
            dim=96,
            layers=0,
            heads=4,
            activation="gelu",
            class_token=False,
        ),
        resampler=ResamplerConfig(latents=5, layers=2, heads=4, head_dim=32, landmarks=7),
        language=LanguageConfig(
            vocabulary=vocabulary,
            dim=128,
            layers=8,
            heads=4,
            qk_norm=True,
            cross_attention_interval=1,
            cross_attention_heads=4,
            cross_attention_head_dim=32,
            gate_init=0.5,
            max_tokens=48,
            reference_tokens=12,
        ),
        head=HeadConfig(lstm_hidden=224, lstm_layers=2, mlp_dims=(256,), horizon=3, proprioception_dim=96),
        lowercase=True,
    )


def _clip_vit_l14() -> VisionConfig:
    return VisionConfig(image_size=224, stem="patch", patch_size=14, dim=1024, layers=24, heads=16)


def _openflamingo_head() -> HeadConfig:
    return HeadConfig(lstm_hidden=1024, lstm_layers=4, mlp_dims=(1024, 512), lstm_dropout=0.3, mlp_dropout=0.4)


def openflamingo_3b() -> DeerConfig:
    """DeeR on OpenFlamingo-3B (CLIP ViT-L/14, MPT-1B Dolly): 12 of 24 layers kept, six exits."""
    return DeerConfig(
        name="openflamingo-3b",
        preprocess=PreprocessConfig(image_size=224, interpolation="bicubic"),
        vision=_clip_vit_l14(),
        resampler=ResamplerConfig(latents=64, layers=6, heads=8, head_dim=64),
        language=LanguageConfig(
            vocabulary=50280,
            dim=2048,
            layers=12,
            heads=16,
            qk_norm=True,
            cross_attention_interval=1,
            cross_attention_heads=8,
            cross_attention_head_dim=64,
        ),
        head=_openflamingo_head(),
    )


def openflamingo_9b() -> DeerConfig:
    """DeeR on OpenFlamingo-9B (CLIP ViT-L/14, MPT-7B): 16 of 32 layers kept, eight exits."""
    return DeerConfig(
        name="openflamingo-9b",
        preprocess=PreprocessConfig(image_size=224, interpolation="bicubic"),
        vision=_clip_vit_l14(),
        resampler=ResamplerConfig(latents=64, layers=6, heads=8, head_dim=64),
        language=LanguageConfig(
            vocabulary=50280,
            dim=4096,
            layers=16,
            heads=32,
            qk_norm=False,
            interleaved_slopes=True,
            cross_attention_interval=4,
            cross_attention_heads=8,
            cross_attention_head_dim=64,
        ),
        head=_openflamingo_head(),
    )


PRESETS: dict[str, Callable[[], DeerConfig]] = {
    "deer-nano": deer_nano,
    "openflamingo-3b": openflamingo_3b,
    "openflamingo-9b": openflamingo_9b,
}


def preset(name: str) -> DeerConfig:
    """The configuration of this name. Raises ConfigError listing the names there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no policy preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
