"""MiniCPM-V 2.6 (`llava.model.minicpm_v`; transformers has none, and no code of a checkpoint is run).

Touches: the model itself as body (it turns ids and images into embeddings), `model.llm.model` (decoder: `layers`,
`norm`, `config`), the layers' `self_attn`, `config.query_num`, and the input `n_views`. Sets `config.image_token_id`
and the stop ids, which the checkpoint leaves to its tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from llava.errors import CheckpointError, first_line
from llava.model.families.base import Family
from llava.model.tokenizers import check_vocabulary

if TYPE_CHECKING:
    from llava.model.minicpm_v.processing import MiniCPMVProcessor

VERSION = "2.6"
STOPS = ("<|im_end|>", "<|endoftext|>")


class MiniCPMV(Family):
    """The visual tokens of an image are the union of its views' runs; the markers between them are text."""

    name: ClassVar[str] = "minicpm_v"
    model_types: ClassVar[tuple[str, ...]] = ("minicpmv",)
    title: ClassVar[str] = "MiniCPM-V 2.6 (openbmb/MiniCPM-V-2_6)"
    budget_rule: ClassVar[str] = "qwen2_vl"
    images_together: ClassVar[str] = "the views of all images come in one row"

    def model_class(self) -> Any:
        from llava.model.minicpm_v.model import MiniCPMV as Model

        return Model

    def tokenizer(self, folder: Path, config: Mapping[str, Any]) -> Any:
        version = config.get("version")
        if str(version) != VERSION:
            raise CheckpointError(f"{folder} is MiniCPM-V {version}; of this family only {VERSION} is supported.")
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(f"{folder} has no tokenizer: tokenizer.json is needed.")
        from transformers import PreTrainedTokenizerFast

        try:  # not AutoTokenizer, which would ask for the checkpoint's own code
            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # damaged files surface as many kinds
            raise CheckpointError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}") from error

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> MiniCPMVProcessor:
        from llava.model.checkpoints import image_processor_config
        from llava.model.minicpm_v.processing import MiniCPMVProcessor
        from llava.model.minicpm_v.slicing import Slicing

        image = image_processor_config(folder)
        try:
            slicing = Slicing(
                scale_resolution=image["scale_resolution"],
                patch_size=image["patch_size"],
                max_slices=image["max_slice_nums"],
                enabled=image.get("slice_mode", True),
            )
            processor = MiniCPMVProcessor(
                tokenizer,
                slicing=slicing,
                image_mean=image["norm_mean"],
                image_std=image["norm_std"],
                n_visual=model.config.query_num,
                numbered=image.get("use_image_id", True),
                device=model.device,
            )
        except KeyError as error:
            raise CheckpointError(f"{folder}: preprocessor_config.json does not give {error}.") from error
        if slicing.patch_size != model.config.vision_config.patch_size:
            raise CheckpointError(
                f"{folder}: patch_size is {slicing.patch_size} in preprocessor_config.json but "
                f"{model.config.vision_config.patch_size} in config.json."
            )
        check_vocabulary(folder, tokenizer, model)
        model.config.image_token_id = processor.image_token_id
        vocabulary = tokenizer.get_vocab()
        model.generation_config.eos_token_id = [vocabulary[stop] for stop in STOPS if stop in vocabulary]
        return processor

    def body(self, model: Any) -> nn.Module:
        return model

    def decoder(self, model: Any) -> nn.Module:
        return model.llm.model

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> Any:
        n_views = inputs.get("n_views")
        if n_views is None:
            return super().image_lengths(model, inputs)
        return [n * model.config.query_num for n in n_views.tolist()]
