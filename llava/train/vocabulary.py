"""New pieces for llava-nano's tokenizer, behind the old ones, and a model grown to match.

Old pieces keep their ids and old prompts their pieces, so that trained embeddings stay valid: a new piece is refused
when any of the merges that lead to it could happen inside an old prompt. `<image>` and `<pad>` keep their ids too (they
become pieces of the SentencePiece model itself), and the folder stays an ordinary `LlamaTokenizer` folder, with
tokenizer.json or without.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from .chinese import LETTER_CN, meanings
from .examples import Difficulty, sample_example
from .export import HEADS
from .letters import LETTER
from .nano import IMAGE_SIZE, PATCH, nano_config
from .questions import NO_OCR, SHORT
from .tokenizer import SYSTEM
from .unanswerable import INSUFFICIENT
from .wide import sample_wide

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # piece types of SentencePiece
SPACE = "▁"
SINGLE = ("B", f"{SPACE}B", f"{SPACE}D")  # answers of multiple choice that were not one piece
FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def prompts(sampler, n_scenes: int, seed: int, endings: Iterable[str], **kwargs) -> list[str]:
    """Prompts with answers of sampled scenes, each with one of the endings in turn."""
    rng, lines, endings = np.random.default_rng(seed), [], list(endings)
    level = Difficulty(side=IMAGE_SIZE // PATCH, things=6, sign=0.6, questions=20, characters=3)
    for number in range(n_scenes):
        for q in sampler(rng, level, IMAGE_SIZE, PATCH, **kwargs)[1]:
            ending = endings[number % len(endings)] if q.ending is None else q.ending
            lines += [f"\n{q.text}{ending} ASSISTANT:", f" {q.answer}"]
    return lines


def new_pieces(tokenizer, most: int, seed: int = 0, scenes: int = 500) -> list[str]:
    """Pieces that shorten prompts of the wide curriculum: characters, Chinese words, then the most frequent merges.

    `scenes`: how many the old prompts are sampled from; the new ones from a little more.
    """
    old = [f"{SYSTEM} USER: ", *prompts(sample_example, scenes, seed, ("", SHORT, NO_OCR + SHORT))]
    adjacent: set[tuple[str, str]] = set()
    characters: set[str] = set()
    for line in old:
        pieces = tokenizer.tokenize(line.strip(" "))
        adjacent.update(zip(pieces, pieces[1:], strict=False))
        characters.update(line)
    known = set(tokenizer.get_vocab())
    found: list[str] = []

    def splits(piece: str) -> list[tuple[str, str]]:
        return [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in known and piece[k:] in known]

    def add(piece: str) -> bool:
        fits = piece not in known and (len(piece) > 1 or piece not in characters)
        fits = fits and (len(piece) == 1 or bool(splits(piece))) and not adjacent.intersection(splits(piece))
        if fits and len(found) < most:
            known.add(piece)
            found.append(piece)
        return fits

    chinese = sorted(meanings(), key=len)
    for character in sorted({c for word in chinese for c in word} - known):
        add(character)
    for word in (*chinese, *SINGLE):
        for end in range(2, len(word) + 1):
            add(word[:end])
        add(word)
    words = _words(tokenizer, seed, scenes * 3 // 5)
    while len(found) < most:
        pairs: Counter = Counter()
        for count, pieces in words.values():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += count
        best = next((p for p, _ in sorted(pairs.items(), key=lambda i: (-i[1], i[0])) if add("".join(p))), None)
        if best is None:
            break
        words = {word: (count, _merged(pieces, best)) for word, (count, pieces) in words.items()}
    return found


def _words(tokenizer, seed: int, scenes: int) -> dict[str, tuple[int, list[str]]]:
    """Words of the wide curriculum's prompts with count and pieces; letters only, so that printed codes stay apart."""
    lines = prompts(sample_wide, scenes, seed + 1, ("", SHORT))
    lines += prompts(sample_wide, scenes, seed + 2, ("",), long=True)
    lines += [f"\n{LETTER} ASSISTANT:", f"{INSUFFICIENT} ASSISTANT:", LETTER_CN] * 100
    counts: Counter = Counter()
    for line in lines:
        counts.update(re.findall(r" ?\b[A-Za-z][a-z]+\b", line))
    out = {}
    for word, count in counts.items():
        pieces = tokenizer.tokenize(f"\n{word}")[2:]  # behind a newline: without the leading space of a text's start
        if "".join(pieces).replace(SPACE, " ") == word:
            out[word] = count, pieces
    return out


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def extend_tokenizer(source: Path, folder: Path, pieces: list[str]) -> None:
    """Write the tokenizer of `source` with `pieces` (not yet in it) appended into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary, merges = state["model"]["vocab"], [tuple(m) for m in state["model"]["merges"]]
    model = (source / "tokenizer.model").read_bytes()
    scores = [-float(i) for i in range(len(vocabulary))]
    for token in sorted(state["added_tokens"], key=lambda t: t["id"]):
        if token["content"] not in vocabulary:  # trained without <image> and <pad>: they come first, under their ids
            vocabulary[token["content"]] = token["id"]
            model += _record(token["content"], 0.0, USER_DEFINED if token["content"] == "<image>" else CONTROL)
    special = {token["content"] for token in state["added_tokens"]}
    for piece in pieces:
        vocabulary[piece] = len(vocabulary)
        model += _record(piece, scores[-1] - len(vocabulary), NORMAL)
        parts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        merges += [p for p in parts if p[0] in vocabulary and p[1] in vocabulary and not special.intersection(p)]
    state["model"]["merges"] = [list(m) for m in merges]
    text = json.dumps(state, ensure_ascii=False, indent=2)
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    if source != folder:
        shutil.copy(source / "tokenizer_config.json", folder / "tokenizer_config.json")


def copy_tokenizer(source: Path, folder: Path) -> None:
    if source.resolve() != folder.resolve():
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(source / name, folder / name)


def grow_folder(source: Path, folder: Path, most: int, checkpoint: Path | None = None, seed: int = 0) -> int:
    """Write the model folder `source` with up to `most` pieces into `folder`; returns the number of new pieces.

    Args:
        checkpoint: a training's folder whose weights (not rounded to bfloat16) and dense heads are taken instead.
    """
    old = AutoTokenizer.from_pretrained(str(source))
    pieces = new_pieces(old, most - len(old), seed)
    extend_tokenizer(source, folder, pieces)
    model = LlavaForConditionalGeneration.from_pretrained(source).float()
    if checkpoint:
        saved = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)["trainee"]
        model.load_state_dict({k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")})
        heads = {k.removeprefix("heads."): v.contiguous() for k, v in saved.items() if k.startswith("heads.")}
        save_file(heads, folder / HEADS)
    grow(model, old, AutoTokenizer.from_pretrained(str(folder)), seed).save_pretrained(folder)
    for name in ("card.json", "training_log.json"):
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
    return len(pieces)


def _record(piece: str, score: float, kind: int) -> bytes:
    """One more entry of a SentencePiece model's field `pieces` (protocol buffers are extended by appending)."""
    name = piece.encode()
    body = b"\x0a" + bytes([len(name)]) + name + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(body)]) + body


@torch.no_grad()
def deepen(model, layers: int, seed: int = 0) -> None:
    """Append decoder layers to `model` (LLaVA with a Llama) up to `layers`; their outputs start at zero."""
    config, decoder = model.config.text_config, model.model.language_model
    generator = torch.Generator().manual_seed(seed)
    for index in range(len(decoder.layers), layers):
        layer = type(decoder.layers[0])(config, index).to(decoder.norm.weight)
        for name, parameter in layer.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            elif parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
        decoder.layers.append(layer)
    config.num_hidden_layers = len(decoder.layers)


@torch.no_grad()
def grow(model, old, new, seed: int = 0):
    """Give `model` (LLaVA with a Llama) all layers (`deepen`) and rows for every piece of tokenizer `new`; returns it.

    As input a new piece starts as the mean of what stood for it before: the pieces `old` splits it (Chinese: its
    English meaning) into, with noise of a tenth of the rows' spread that keeps equal means apart. As output it starts
    as the mean of all rows: copied rows would take half of the answers from the pieces they are copied from.
    """
    text: Any = nano_config(new).text_config
    deepen(model, text.num_hidden_layers, seed)
    rows = max(text.vocab_size, model.get_input_embeddings().weight.shape[0])
    model.resize_token_embeddings(rows, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    meaning = meanings()
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    head[len(old) :] = head[: len(old)].mean(0)
    table[len(old) :] = table[: len(old)].mean(0)
    for piece, index in sorted(new.get_vocab().items(), key=lambda item: item[1]):
        if index < len(old):
            continue
        text = meaning.get(piece, piece.replace(SPACE, " "))
        parts = old(f"\n{text}", add_special_tokens=False).input_ids[2:]
        if text.startswith(" ") or piece in meaning:
            parts = old(text.strip(), add_special_tokens=False).input_ids
        noise = torch.randn(table.shape[1], generator=generator) * table[: len(old)].std() / 10
        table[index] = table[parts].mean(0) + noise.to(table)
    model.config.text_config.vocab_size = rows
    return model
