"""The SentencePiece tokenizer of llava-nano, trained on its own questions, prompts and alphabets."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from .examples import Difficulty, sample_example
from .questions import NO_OCR, SHORT
from .scenes import CHARACTERS

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# Stands for a newline in the corpus: words that begin a line get pieces without a leading space.
LINE_START = "\u00b6"
EXTRA_WORDS = (
    "what which where when who why how many much is are was were can could do does did the a an of in on at to from "
    "with and or not no yes there this that it its image picture photo sign object objects thing color shape number "
    "word text letter digit left right top bottom middle center above below near between first second third fourth "
    "last small large big same different more less fewer than most least equal all any some both other describe "
    "answer question option letter given choices directly please short phrase single using unanswerable when "
    "provided information insufficient respond reference OCR token tokens appear appears move moves change changes "
    "video frame before after start end clock wise sum result plus minus times pattern background plain striped "
    "checkered dotted roll corners sides"
)


def corpus(n_scenes: int = 4000, seed: int = 0) -> list[str]:
    """Sentences the tokenizer is trained on; printed codes appear as single characters only and stay apart."""
    rng = np.random.default_rng(seed)
    level = Difficulty(side=24, things=5)
    lines = [f"{SYSTEM} USER: "] * 200 + [f"{NO_OCR}{SHORT} ASSISTANT:"] * 200
    for _ in range(n_scenes):
        _, asked = sample_example(rng, level, 336, 14)
        for q in asked:
            text, answer = (
                re.sub(r"[A-Z0-9+]{2,}", lambda code: " ".join(code[0]), part) for part in (q.text, q.answer)
            )
            lines.append(f"\n{text} ASSISTANT: {answer}")
    lines += [" ".join(CHARACTERS)] * 200 + [" ".join(map(chr, range(33, 127)))] * 20
    words = EXTRA_WORDS.split()
    lines += [" ".join(words[i] for i in rng.permutation(len(words))) for _ in range(100)]
    return lines


def train_tokenizer(folder: Path, vocab_size: int = 900, seed: int = 0) -> None:
    """Train and write `tokenizer.model` and the Hugging Face files beside it.

    The last two ids of the vocabulary are `<image>` and `<pad>`, as in converted LLaVA-1.5 checkpoints.
    """
    import sentencepiece
    from transformers import AddedToken, LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("tokenizer*"):
        stale.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "corpus.txt"
        text.write_text("\n".join(line.replace("\n", LINE_START) for line in corpus(seed=seed)), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(Path(scratch) / "tokenizer"),
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
        (folder / "tokenizer.model").write_bytes((Path(scratch) / "tokenizer.model").read_bytes())
    tokenizer = LlamaTokenizer.from_pretrained(str(folder), legacy=True, add_bos_token=True, add_eos_token=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<image>", special=True, normalized=False)]})
    tokenizer.add_special_tokens({"pad_token": AddedToken("<pad>", special=True, normalized=False)})
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(str(folder))
