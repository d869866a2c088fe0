"""Tokenising a prompt piece by piece around its image markers, as LLaVA's own code does (`tokenizer_image_token`)."""

from __future__ import annotations

from typing import Any


class Pieces:
    """Ids of texts between images.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._prefix = _piece_prefix(tokenizer)
        bos, told = tokenizer.bos_token_id, getattr(tokenizer, "init_kwargs", {}).get("add_bos_token")
        self.start: list[int] = [] if bos is None or told is False else [bos]
        """What a prompt begins with: the beginning-of-sequence token, if the tokenizer has one and is to add it."""

    def ids(self, piece: str) -> list[int]:
        """Tokenise text between images. As in the tokenizer LLaVA used, text after an end-of-sequence starts afresh."""
        eos = self.tokenizer.eos_token
        ids: list[int] = []
        for number, part in enumerate(piece.split(eos) if eos else [piece]):
            if number:
                ids.append(self.tokenizer.eos_token_id)
            if part:
                ids += self.tokenizer(self._prefix + part, add_special_tokens=False).input_ids
        return ids


def _piece_prefix(tokenizer: Any) -> str:
    """Return what to put before a text so that it is tokenised as SentencePiece does at the start of a sentence.

    SentencePiece always puts one `▁` first: a line break after an image is `▁`, newline, and a leading space `▁▁`.
    transformers' Llama tokenizers leave it out where the text starts with a space already (or, after some conversions,
    everywhere), but turn a space we write ourselves into it. Tokenizers without `▁` are left alone.
    """
    pieces = "".join(tokenizer.tokenize(" x"))
    return " " if len(pieces) - len(pieces.lstrip("▁")) == 1 else ""
