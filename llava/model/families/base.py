"""What loading and surgery have to know about a model family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from llava.model.families.tower import TowerAdapter
from llava.model.layout import Lengths

if TYPE_CHECKING:
    from llava.model.processing import Processor


@dataclass(frozen=True)
class Original:
    """A checkpoint in another format, brought into the form of the family's model class.

    Args:
        config: configuration object of the model class.
        weights: every weight under the names that `from_pretrained` of the model class reads.
        names: prefixes (of the loaded model, of the original file), the first that fits counts; for error messages.
    """

    config: Any
    weights: Mapping[str, Tensor]
    names: tuple[tuple[str, str], ...] = ()

    def original_name(self, key: str) -> str:
        """Return what the original file calls a weight of the loaded model."""
        for loaded, original in self.names:
            if key.startswith(loaded):
                return original + key.removeprefix(loaded)
        return key


class Family(TowerAdapter):
    """Adapter of a model family; the defaults fit most vision-language models of transformers.

    A new family is a subclass in its own file, added to `llava.model.families.FAMILIES`. Nothing here imports
    transformers before a checkpoint is loaded.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    """`config.model_type` of its loaded models."""
    title: ClassVar[str]
    """What it is, with the hub names of typical checkpoints; shown where a checkpoint is of no supported kind."""
    budget_rule: ClassVar[str] = "llava"
    """Whose rule turns the released arguments into a budget (`llava.reduction.released.FAMILIES`)."""
    inputs: ClassVar[tuple[str, ...]] = ("image", "several images")
    """What a prompt may hold besides text: of "image", "several images" and "video"."""
    limits: ClassVar[str] = ""
    """What a user should know of these inputs, in words; empty if nothing."""
    prefix_differs: ClassVar[str] = ""
    """Why the keys and values of a prompt's beginning cannot be computed without the rest of it, in words; empty if
    they can."""
    transformers_class: ClassVar[str] = ""
    """Name of the model class in transformers."""
    adds_between_layers: ClassVar[str] = ""
    """Name of the decoder's function that adds features to the visual tokens between layers, called with the hidden
    states, the (B, N) mask of visual columns and the features of those (Qwen3-VL)."""

    # ------------------------------------------------------------------------------------------------------- loading

    def recognises(self, config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is of this family."""
        return config.get("model_type") in self.model_types

    def model_class(self) -> Any:
        """The model's class; `from_pretrained` builds it."""
        import transformers

        return getattr(transformers, self.transformers_class)

    def tokenizer(self, folder: Path, config: Mapping[str, Any]) -> Any:
        """Load the tokenizer of a checkpoint.

        Raises:
            CheckpointError: it is absent or damaged.
        """
        from llava.model.tokenizers import load_tokenizer

        return load_tokenizer(folder)

    def original(self, folder: Path, config: Mapping[str, Any], tokenizer: Any) -> Original | None:
        """Bring a checkpoint in another format into the form of the model class; None if it is in that form already.

        Raises:
            CheckpointError: a weight or a setting has no place, or a file is missing or damaged.
        """
        return None

    def processor(self, folder: Path, config: Mapping[str, Any], model: Any, tokenizer: Any) -> Processor:
        """Return the processor for a loaded model, on the model's device.

        Raises:
            CheckpointError: settings are missing, or tokenizer and model disagree.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------- surgery

    def body(self, model: Any) -> nn.Module:
        """The module that turns token ids and images into hidden states (the model without its language head)."""
        return model.model

    def decoder(self, model: Any) -> nn.Module:
        """The text model: `layers`, final `norm`, `config`."""
        body: Any = self.body(model)
        return body.language_model

    def placeholders(self, model: Any) -> tuple[int, ...]:
        """Token ids that stand for visual tokens in the prompt."""
        ids = (getattr(model.config, f"{kind}_token_id", None) for kind in ("image", "video"))
        return tuple(token for token in ids if token is not None)

    def image_lengths(self, model: Any, inputs: dict[str, Any]) -> Lengths | Mapping[int, Lengths]:
        """Visual tokens per image: one number for all, a list over the images of the batch, or None if not known; or
        one of those for each placeholder id.

        None makes every unbroken run of placeholders one image. Features encoded ahead (transformers' generate does)
        tell the lengths.
        """
        encoded = (inputs.get("mm_encoder_outputs") or {}).get("image")
        features = getattr(encoded, "pooler_output", None)
        return [len(feature) for feature in features] if isinstance(features, (list, tuple)) else None

    def newlines(self, model: Any, inputs: dict[str, Any]) -> Sequence[Sequence[int]] | None:
        """Offsets within each image of the batch of visual tokens that only end a row; None where there are none."""
        return None
