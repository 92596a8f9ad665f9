"""Every size and option of a policy, checked when built."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from deer_policies.deer.settings import check_fraction, check_one_of, check_positive, from_plain, merged
from deer_policies.errors import ConfigError
from deer_policies.interfaces import GRIPPER_SHAPE, PROPRIOCEPTION_SIZE, STATIC_SHAPE

ENCODED_PROPRIOCEPTION = PROPRIOCEPTION_SIZE + 3
"""Robot state with its three angles as sine and cosine."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
COMPATIBILITIES = ("default", "official")


@dataclass(frozen=True)
class PreprocessConfig:
    """How camera images become tensors.

    Attributes:
        static_shape, gripper_shape: (rows, columns, 3) of the camera images; square, so that nothing is cropped.
        image_size: rows and columns after resizing, of both views.
        interpolation: 'bilinear' or 'bicubic', antialiased.
        mean, std: of each channel, for images in [0, 1].
    """

    image_size: int
    interpolation: str = "bilinear"
    static_shape: tuple[int, int, int] = STATIC_SHAPE
    gripper_shape: tuple[int, int, int] = GRIPPER_SHAPE
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        check_positive(self, "image_size")
        check_one_of(self, "interpolation", ("bilinear", "bicubic"))
        for name in ("static_shape", "gripper_shape"):
            shape = getattr(self, name)
            if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or shape[0] < 1:
                raise ConfigError(
                    f"PreprocessConfig.{name} is {shape}; it must be (n, n, 3): crop the camera to a square"
                )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0.0:
            raise ConfigError(f"image mean {self.mean} and std {self.std} need three values each, std above 0")


@dataclass(frozen=True)
class VisionConfig:
    """Vision transformer (CLIP's layout) on one view.

    Attributes:
        stem: 'patch' cuts the image by one strided convolution (CLIP); 'conv' has 3x3 convolutions, of which the first
            ones halve the image until a pixel spans `patch_size`; it learns much faster at small sizes.
        patch_size: pixels that one token spans in each direction; a power of two for a 'conv' stem.
        stem_channels: output channels of each convolution of a 'conv' stem; the last one is `dim`.
        dim, layers, heads, mlp_ratio: of the transformer; 0 layers leave the stem alone.
        activation: 'quick_gelu' (CLIP) or 'gelu'.
        class_token: CLIP's extra token; it takes part in attention and is dropped at the end.
    """

    image_size: int
    stem: str
    patch_size: int
    dim: int
    layers: int
    heads: int
    stem_channels: tuple[int, ...] = ()
    mlp_ratio: int = 4
    activation: str = "quick_gelu"
    class_token: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "patch_size", "dim", "heads", "mlp_ratio")
        check_one_of(self, "stem", ("patch", "conv"))
        check_one_of(self, "activation", ("quick_gelu", "gelu"))
        if self.layers < 0:
            raise ConfigError(f"VisionConfig.layers is {self.layers}; it can't be negative")
        if self.dim % self.heads:
            raise ConfigError(f"VisionConfig.dim {self.dim} must be a multiple of heads {self.heads}")
        if self.image_size % self.patch_size:
            raise ConfigError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        if self.stem == "conv" and (
            2**self.halvings != self.patch_size
            or len(self.stem_channels) < self.halvings
            or self.stem_channels[-1] != self.dim
        ):
            raise ConfigError(
                f"stem_channels {self.stem_channels} must be log2({self.patch_size}) numbers or more, the last "
                f"{self.dim}, and the patch size a power of two"
            )

    @property
    def halvings(self) -> int:
        """Convolutions of stride 2 in a 'conv' stem."""
        return self.patch_size.bit_length() - 1

    @property
    def side(self) -> int:
        """Patches along each edge of the picture."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Patch tokens of one view."""
        return self.side**2


@dataclass(frozen=True)
class ResamplerConfig:
    """Perceiver resampler: any number of tokens of a view becomes a few; both views share its weights.

    Attributes:
        latents: tokens that are learned queries.
        layers, heads, head_dim, mlp_ratio: of the attention to the view's tokens.
        landmarks: further tokens, in front, each for a thing that is looked for; see `landmark_tokens`.
    """

    latents: int
    layers: int
    heads: int
    head_dim: int
    mlp_ratio: int = 4
    landmarks: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "latents", "layers", "heads", "head_dim", "mlp_ratio")
        if self.landmarks < 0:
            raise ConfigError(f"ResamplerConfig.landmarks is {self.landmarks}; it can't be negative")

    @property
    def tokens(self) -> int:
        """Tokens that a view becomes."""
        return self.landmarks + self.latents


@dataclass(frozen=True)
class LanguageConfig:
    """MPT decoder layers with gated cross-attention in front, and the exits among them.

    Attributes:
        vocabulary: rows of the token embedding.
        dim, layers, heads, mlp_ratio: of the MPT blocks that are kept (layers above the last exit are never built).
        qk_norm: LayerNorm on queries and keys before the head split (MPT-1B).
        interleaved_slopes: how ALiBi's slopes are chosen for a number of heads that is not a power of two, see
            `language.alibi_slopes` (MPT-7B).
        cross_attention_interval: a gated cross-attention stands before layers n-1, 2n-1, ... for interval n.
        cross_attention_heads, cross_attention_head_dim: its size.
        gate_init: initial value of its gates under tanh; 0 leaves a pretrained language model as it was.
        exit_interval: an exit after every so many layers, and one after the last.
        max_tokens: longer texts are cut.
        reference_tokens: text length at which budgets are quoted, near the mean of real instructions.
    """

    vocabulary: int
    dim: int
    layers: int
    heads: int
    qk_norm: bool
    cross_attention_interval: int
    cross_attention_heads: int
    cross_attention_head_dim: int
    mlp_ratio: int = 4
    interleaved_slopes: bool = False
    gate_init: float = 0.0
    exit_interval: int = 2
    max_tokens: int = 32
    reference_tokens: int = 11

    def __post_init__(self) -> None:
        check_positive(
            self, "vocabulary", "dim", "layers", "heads", "mlp_ratio", "cross_attention_interval",
            "cross_attention_heads", "cross_attention_head_dim", "max_tokens", "reference_tokens",
        )  # fmt: skip
        if self.dim % self.heads:
            raise ConfigError(f"LanguageConfig.dim {self.dim} must be a multiple of heads {self.heads}")
        if self.exit_interval < 2:
            raise ConfigError(
                f"exit_interval is {self.exit_interval}; take 2 or more: the first exit needs a layer before it"
            )
        if self.layers < 2:
            raise ConfigError(f"LanguageConfig.layers is {self.layers}; at least 2 are needed for one exit")
        if self.reference_tokens > self.max_tokens:
            raise ConfigError(f"reference_tokens {self.reference_tokens} is above max_tokens {self.max_tokens}")

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """0-based layer index of each exit, shallowest first."""
        last = self.layers - 1
        return (*range(self.exit_interval - 1, last, self.exit_interval), last)

    def has_cross_attention(self, layer: int) -> bool:
        """Whether a gated cross-attention stands before this layer."""
        return (layer + 1) % self.cross_attention_interval == 0


@dataclass(frozen=True)
class HeadConfig:
    """Recurrent action head, shared by all exits.

    Attributes:
        lstm_hidden, lstm_layers: LSTMs in a stack, LayerNorm on the output of each.
        mlp_dims: hidden sizes of the pose and of the gripper network.
        lstm_dropout: between LSTM layers.
        mlp_dropout: in the two networks; `dropout_mode` 'layerwise' puts it before every linear layer, 'last' before
            the output only.
        horizon: actions that one step of the policy gives, for as many control steps.
        proprioception_dim: size of the encoded robot state beside the pooled feature; 0 leaves the robot state out.
        proprioception_mean, proprioception_std: (18,) for normalisation of the encoded robot state, see
            `action_head.encoded_proprioception`.
    """

    lstm_hidden: int
    lstm_layers: int
    mlp_dims: tuple[int, ...]
    lstm_dropout: float = 0.0
    mlp_dropout: float = 0.0
    dropout_mode: str = "layerwise"
    horizon: int = 1
    proprioception_dim: int = 0
    proprioception_mean: tuple[float, ...] = (0.0,) * ENCODED_PROPRIOCEPTION
    proprioception_std: tuple[float, ...] = (1.0,) * ENCODED_PROPRIOCEPTION

    def __post_init__(self) -> None:
        check_positive(self, "lstm_hidden", "lstm_layers", "horizon")
        check_fraction(self, "lstm_dropout", "mlp_dropout")
        check_one_of(self, "dropout_mode", ("layerwise", "last"))
        if not self.mlp_dims or min(self.mlp_dims) < 1:
            raise ConfigError(f"HeadConfig.mlp_dims is {self.mlp_dims}; name at least one hidden size")
        if self.proprioception_dim < 0:
            raise ConfigError(f"proprioception_dim is {self.proprioception_dim}; it must be 0 (off) or a size")
        for name in ("proprioception_mean", "proprioception_std"):
            if len(getattr(self, name)) != ENCODED_PROPRIOCEPTION:
                raise ConfigError(
                    f"HeadConfig.{name} has {len(getattr(self, name))} values; it needs {ENCODED_PROPRIOCEPTION}"
                )
        if min(self.proprioception_std) <= 0.0:
            raise ConfigError(f"proprioception_std {self.proprioception_std} must be above 0 everywhere")

    @property
    def use_proprioception(self) -> bool:
        """Whether the head sees the robot state."""
        return self.proprioception_dim > 0


@dataclass(frozen=True)
class DeerConfig:
    """A whole policy.

    Attributes:
        compatibility: 'default' does what we hold right; 'official' reproduces the released code where the two differ
            on purpose, to compare with its numbers: padded text positions take part in max pooling (the features of a
            sample then depend on the longest instruction in its batch), random shifts are drawn for each frame and
            lean to one side, a peak limit loads one layer more than it runs, and actions are rounded to float16.
    """

    name: str
    preprocess: PreprocessConfig
    vision: VisionConfig
    resampler: ResamplerConfig
    language: LanguageConfig
    head: HeadConfig
    views: int = 2
    lowercase: bool = False
    compatibility: str = "default"

    def __post_init__(self) -> None:
        check_positive(self, "views")
        check_one_of(self, "compatibility", COMPATIBILITIES)
        if self.preprocess.image_size != self.vision.image_size:
            raise ConfigError(
                f"images become {self.preprocess.image_size} pixels wide but vision takes {self.vision.image_size}"
            )

    @property
    def official(self) -> bool:
        """Whether the released code is reproduced where it differs from ours on purpose."""
        return self.compatibility == "official"

    def layers_to_load(self, exits: int | None = None) -> int:
        """Language model layers that the first `exits` exits need; None means all exits.

        The official code takes the limit for the index of the last layer and loads one layer more, which never runs.
        """
        last = self.language.exit_layers[:exits][-1]
        return min(last + 1 + int(self.official), self.language.layers)

    def with_proprioception_statistics(self, mean: Any, std: Any) -> DeerConfig:
        """The same policy with the encoded robot state normalised by these (18,) values, those of the training data."""
        head = replace(
            self.head,
            proprioception_mean=tuple(float(value) for value in mean),
            proprioception_std=tuple(float(value) for value in std),
        )
        return replace(self, head=head)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DeerConfig:
        """The inverse of `to_dict`. Raises ConfigError, naming the setting, for one that is unknown or missing.

        Checkpoints of before `compatibility` say `pool_padding` instead, which was the whole of it.
        """
        if isinstance(values, dict) and "pool_padding" in values:
            rest = {name: value for name, value in values.items() if name != "pool_padding"}
            values = {"compatibility": COMPATIBILITIES[bool(values["pool_padding"])], **rest}
        return from_plain(cls, values, "policy")


def changed(config: DeerConfig, changes: dict[str, Any]) -> DeerConfig:
    """A copy with some settings changed, given as nested mappings: {'vision': {'layers': 4}}."""
    return DeerConfig.from_dict(merged(config.to_dict(), changes))
