"""The sections `fusion` and `outputs`: captions, how they are cut into tokens, the decoder, and its samples."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from img2seq.config.causal_lm import CausalLM
from img2seq.config.decoding import with_default
from img2seq.config.section import MOST, Section, neutral
from img2seq.errors import shown

MOST_FEEDFORWARD = 1_048_576

# One line a field reads like the table it is.
# fmt: off


class Fusion(Section):
    model_type: Literal["pass-through"] = Field("pass-through", description="Inputs reach a sequence output as context vectors that every decoder layer attends to. Other fusions squeeze them to one vector and are not supported.")


class CaptionSource(Section):
    output_source: str = Field(min_length=1, description="Captions: a file, a folder or a pattern of shards, of any format in docs/data.md (tables, COCO, Karpathy, Flickr tokens, image folders, Parquet, WebDataset, JSON Lines, BLIP, LLaVA, text files beside pictures).")
    output_name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-]+$", description="Name of this output in files, figures and overrides.")
    output_type: Literal["sequence"] = Field(description="Only sequence is supported.")


class ReadOptions(Section):  # what a person says of captions on disk: fields here, flags of the verbs that read captions
    format: Literal["table", "coco", "karpathy", "flickr", "imagefolder", "parquet", "webdataset", "jsonl", "blip", "llava", "sidecar", "lists"] | None = Field(None, description="Ours. Format of the captions, where it is not found from what they hold.")
    id_column: str | None = Field(None, description="Ours. Column (or key) with the ID of an image; null guesses.")
    caption_columns: list[str] = Field([], description="Ours. Columns (or keys) with captions; empty guesses.")
    image_column: str | None = Field(None, description="Ours. Column (or key) with the picture or its path, which makes the ID where there is no id_column; null guesses.")
    delimiter: str | None = Field(None, pattern=r"^(tab|[^\r\n])$", description="Ours. What separates the columns of a table: one character, or tab; null guesses.")
    encoding: str | None = Field(None, min_length=1, description="Ours. Encoding of a text file, such as cp1252; null is UTF-8, or Windows-1252 or UTF-16 where it is evidently that.")


class OutputInfo(ReadOptions, CaptionSource):  # pydantic takes the fields of the last base first
    pass


class SequenceTypeInfo(Section):
    vocab_file: str | None = Field(None, description="JSON file {token: number} to use in place of a vocabulary made from the training captions, or a tokenizer.json of another run.")
    max_length: Literal["max", "average"] | int = Field("average", description="Most tokens of a caption, the end token included. max: the longest training caption; average: their mean length.")
    sampling_strategy_if_longer: Literal["from_start", "uniform"] = Field("uniform", description="Which part of a longer caption is trained on: its start, or a window drawn anew each epoch. Validation always takes the start.")
    min_freq: int = Field(10, ge=1, le=MOST, description="Words seen less often in the training captions become the unknown token.")
    split_on: str | None = Field(" ", description="How captions are cut into tokens: words for words and punctuation marks, written again as sentences (docs/scores.md); any other text separates tokens: ' ' for what stands between spaces, '' for characters; null leaves it to the tokenizer.")
    lowercase: bool = Field(False, description="Ours. Lower-case captions before they are split; with split_on: words, sentences are written with a capital again.")
    tokenizer: Literal["bpe"] | None = Field(None, description="bpe learns sub-word units from the training captions; null splits on `split_on` alone.")
    tokenizer_language: str | None = neutral(None, "no tokenizer here depends on the language.")
    adaptive_tokenizer_max_vocab_size: int | None = Field(None, ge=16, le=1_000_000, description="Most units that bpe learns; null is 10,000.")
    sequence_operation: Literal["autoregressive"] = Field("autoregressive", description="Each token is predicted from those before it.")

    @model_validator(mode="after")
    def _lengths_and_tokenizer_agree(self) -> Self:
        if isinstance(self.max_length, int) and not 2 <= self.max_length <= 4096:
            raise ValueError(f"max_length: expected 'max', 'average' or 2 to 4096, found {shown(self.max_length)}")
        if self.split_on is None and self.tokenizer is None and self.vocab_file is None:
            raise ValueError("split_on: null needs tokenizer: bpe, or every caption would be one token")
        if self.adaptive_tokenizer_max_vocab_size is not None and self.tokenizer != "bpe":
            raise ValueError("adaptive_tokenizer_max_vocab_size: only used with tokenizer: bpe")
        return self


class DecoderSize(Section):
    num_heads: int = Field(8, ge=1, le=65536, description="Attention heads of a layer; divides embedding_dim.")
    num_layers: int = Field(2, ge=1, le=256, description="Decoder layers.")
    dim_feedforward: Literal["auto"] | int = Field("auto", description="Width of the feed-forward layers; auto is 4 times embedding_dim.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout after attention and feed-forward layers.")


class SequenceModel(Section):
    model_type: Literal["sequence"] = Field("sequence", description="A causal transformer decoder, trained from nothing; causal_lm is a pretrained language model in its place.")
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
        if isinstance(width, int) and not 1 <= width <= MOST_FEEDFORWARD:
            raise ValueError(f"model_init_config.dim_feedforward: expected 'auto' or 1 to {MOST_FEEDFORWARD}, found {shown(width)}")
        return self

    @property
    def feedforward_dim(self) -> int:
        width = self.model_init_config.dim_feedforward
        return 4 * self.embedding_dim if width == "auto" else width


class SamplingConfig(Section):
    manual_inputs: list[dict[str, str]] = Field([], description="Further inputs to caption at every evaluation: {input name: image file, output name: beginning of the caption}.")
    n_eval_inputs: int = Field(10, ge=0, le=10_000, description="Validation images captioned at every evaluation.")
    generated_sequence_length: int = with_default("max_length", 64, "Most tokens of a sampled caption.")
    repetition_penalty: float = with_default("repetition_penalty", 1.1)
    repetition_penalty_max_window: int = with_default("repetition_penalty_max_window", 64)
    frequency_penalty: float = with_default("frequency_penalty", 0.1)
    frequency_penalty_max_window: int = with_default("frequency_penalty_max_window", 128)
    no_repeat_ngram: int = with_default("no_repeat_ngram", 0)
    temperature: float = with_default("temperature", 0.7)
    top_k: int = with_default("top_k", 20)
    top_p: float = with_default("top_p", 0.9)
    tau: float = with_default("tau", 0.95)


def _kind_of(model: Any) -> str:
    """Return which kind of decoder is meant; in brackets, for that is how `explain` tells kinds from keys."""
    found = model.get("model_type") if isinstance(model, dict) else getattr(model, "model_type", None)
    return "[causal_lm]" if found == "causal_lm" else "[sequence]"


DecoderModel = Annotated[
    Annotated[SequenceModel, Tag("[sequence]")] | Annotated[CausalLM, Tag("[causal_lm]")], Discriminator(_kind_of)
]
CUTS_TEXT = ("vocab_file", "min_freq", "split_on", "tokenizer", "adaptive_tokenizer_max_vocab_size")


class SequenceOutput(Section):
    output_info: OutputInfo
    output_type_info: SequenceTypeInfo = SequenceTypeInfo()
    model: DecoderModel = Field(SequenceModel(), alias="model_config")
    sampling_config: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _a_language_model_cuts_text_itself(self) -> Self:
        info, default = self.output_type_info, SequenceTypeInfo()
        for name in CUTS_TEXT if isinstance(self.model, CausalLM) else ():
            if (found := getattr(info, name)) != (expected := getattr(default, name)):
                raise ValueError(f"output_type_info.{name}: a language model has a tokenizer of its own: leave it out, or at {expected!r}; found {shown(found)}")
        return self

    @property
    def name(self) -> str:
        return self.output_info.output_name
