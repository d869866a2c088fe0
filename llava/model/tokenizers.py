"""Load a checkpoint's tokenizer; one that is absent is told, instead of the empty one that transformers would make."""

from pathlib import Path
from typing import Any

from llava.errors import CheckpointError, first_line

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_tokenizer(folder: Path, **settings: Any) -> Any:
    """Return the tokenizer in a folder.

    Args:
        settings: keyword arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(f"{folder} has no tokenizer: {' or '.join(TOKENIZER_FILES)} is needed.")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **settings)
    except Exception as error:  # damaged files surface as many kinds
        raise CheckpointError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}") from error


def check_vocabulary(folder: Path, tokenizer: Any, model: Any) -> None:
    """Refuse a tokenizer with more entries than the model has embeddings.

    Raises:
        CheckpointError: says both numbers.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {rows}.")
