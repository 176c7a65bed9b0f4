"""Images to context vectors: an encoder from timm, whose feature map is kept as a grid.

Shapes: B images, C channels of the feature map, P places of its grid (and class tokens, where there are any), D decoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from img2seq.errors import ModelError
from img2seq.model.weights import first_line

CreateBackbone = Callable[[str, int, int, int, Mapping[str, Any]], nn.Module]  # as `create_backbone`


class ImageEncoder(nn.Module):
    """An encoder by timm's name; (B, channels, height, width) uint8 pixels to (B, P, C) features.

    Args:
        name: of a timm model.
        height: of the pixels.
        width: of the pixels.
        mean: of each channel, pixel values in 0..1.
        std: of each channel, pixel values in 0..1.
        options: further keyword arguments for timm.create_model.
        create: what makes the timm model; `pretrained` has two that read weights, too.
        frozen: keep weights and batch statistics as they are; no gradient is computed.

    Raises:
        ModelError: for an unknown name, options it does not take, weights that cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        height: int,
        width: int,
        mean: list[float],
        std: list[float],
        options: Mapping[str, Any] | None = None,
        frozen: bool = False,
        create: CreateBackbone | None = None,
    ):
        super().__init__()
        self.frozen, self.keeps_statistics, self.size, self.n_channels = frozen, False, (height, width), len(mean)
        self.runtime: Callable[[Tensor], Tensor] | None = None  # see `onnx_encoder.accelerate`
        self.backbone = (create or create_backbone)(name, height, width, len(mean), options or {})
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1))
        self.scale: Tensor
        self.shift: Tensor
        self.requires_grad_(not frozen)
        # torch 2.14 writes past its memory in the gradient of 1 x 1 stems with a stride that are kept channels last (mobileone, fastvit)
        stems = [m for m in self.backbone.modules() if isinstance(m, nn.Conv2d) and m.in_channels <= 4]
        is_safe = all(stem.kernel_size != (1, 1) or stem.stride == (1, 1) for stem in stems)
        self.memory_format = torch.channels_last if is_safe else torch.contiguous_format
        self.backbone.to(memory_format=self.memory_format)
        self.n_places, self.n_features = self._measure(name, height, width, len(mean))

    def train(self, mode: bool = True) -> ImageEncoder:
        """Set training mode; an encoder that is frozen, or keeps its batch statistics, stays in evaluation mode, or they would move."""
        super().train(mode and not (self.frozen or self.keeps_statistics))
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (B, P, C) features of (B, channels, height, width) uint8 pixels."""
        if self.runtime is not None and not self.training and not torch.is_grad_enabled():
            return self.runtime(pixels)
        return self.features(torch.addcmul(-self.shift, pixels.to(self.scale.dtype), self.scale))

    def features(self, normalised: Tensor) -> Tensor:
        """Return (B, P, C) features of (B, channels, height, width) pixels with mean 0 and standard deviation 1."""
        x = normalised.contiguous(memory_format=self.memory_format)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._as_sequence(self.backbone.forward_features(x))  # type: ignore[operator]  # every timm model has it

    def _as_sequence(self, features: Tensor) -> Tensor:
        if not isinstance(features, Tensor):
            raise TypeError(
                f"expected features as a map or a sequence, found a {type(features).__name__} of {len(features)}"
            )
        if features.ndim == 4:  # (B, C, H, W), or (B, H, W, C) as Swin gives it
            if features.shape[1] != self.backbone.num_features:
                features = features.permute(0, 3, 1, 2)
            features = features.flatten(2).transpose(1, 2)
        return features

    @torch.no_grad()
    def _measure(self, name: str, height: int, width: int, channels: int) -> tuple[int, int]:
        training = self.training
        self.eval()
        blank = torch.zeros(1, channels, height, width, dtype=torch.uint8)
        try:
            features = self(blank)
        except Exception as error:  # of all kinds: some hundred architectures
            reason = first_line(error)
            raise ModelError(f"model_type: {name} cannot take images of {height} x {width} pixels: {reason}") from error
        self.train(training)
        if features.ndim != 3 or features.shape[1] == 0:
            raise ModelError(
                f"model_type: {name} gives features of shape {tuple(features.shape)}, expected a map or a sequence"
            )
        return features.shape[1], features.shape[2]


def timm_library() -> Any:
    """Return timm, which imports torchvision: only where an encoder is built."""
    import timm

    return timm


def create_backbone(
    name: str, height: int, width: int, channels: int, options: Mapping[str, Any], *, pretrained: bool = False
) -> nn.Module:
    """Return a timm encoder without its classifier.

    Args:
        name: of a timm model.
        height: of its images.
        width: of its images.
        channels: of its images.
        options: further keyword arguments for timm.create_model.
        pretrained: with the weights that timm names for it.

    Raises:
        ModelError: for an unknown name or options it does not take.
    """
    options = dict(options)
    try:
        config = pretrained_config(name)
        if config is not None and config.fixed_input_size:
            options.setdefault("img_size", (height, width))
        model: nn.Module = timm_library().create_model(
            name, pretrained=pretrained, num_classes=0, in_chans=channels, **options
        )
    except TypeError as error:
        raise ModelError(f"model_init_config: {name}: {str(error).split('.')[-1]}") from error
    except Exception as error:
        raise ModelError(f"model_type: {name} cannot be built: {first_line(error)}") from error
    return model


def pretrained_config(name: str) -> Any:
    """Return what timm knows of a model's pretrained weights, or None."""
    return timm_library().models.get_pretrained_cfg(name)


class ContextProjection(nn.Module):
    """Features of one input to the decoder's memory: (B, P, C) to (B, P, D).

    Each place of the grid has a learned position, and the input a learned type vector, so that the decoder can tell places
    and inputs apart. Positions start half as large as the features: started near zero they are found late, and with them
    left and right.
    """

    def __init__(self, n_places: int, n_features: int, width: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(n_features)
        self.linear = nn.Linear(n_features, width)
        self.place = nn.Parameter(0.5 * torch.randn(n_places, width))
        self.kind = nn.Parameter(0.02 * torch.randn(width))
        self.out_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, P, D) context vectors of (B, P, C) features."""
        x = self.linear(self.norm(features.to(self.linear.weight.dtype)))
        context: Tensor = self.dropout(self.out_norm(x + self.place + self.kind))
        return context
