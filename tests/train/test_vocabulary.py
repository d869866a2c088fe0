"""A grown vocabulary: old ids stay, new pieces are used, the folder stays ordinary, training starts from it."""

import shutil

import pytest
import torch
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from llava.train import vocabulary
from llava.train.__main__ import ASSETS
from llava.train.data import Stage
from llava.train.examples import Difficulty
from llava.train.trainer import Trainer

NEW = ["鱼", "鱼鱼", "▁Hum", "▁Hump"]
OLD_TEXT = (
    "A chat USER: <image>\nWhat color is the circle?\nAnswer the question using a single word or phrase. ASSISTANT: red"
)
NEW_TEXT = "\nWhat 鱼鱼鱼是什么？ Hump ASSISTANT:"


@pytest.fixture(scope="module")
def old():
    return AutoTokenizer.from_pretrained(str(ASSETS))


@pytest.fixture(scope="module")
def grown(old, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    vocabulary.extend_tokenizer(ASSETS, folder, NEW)
    shutil.copy(ASSETS / "config.json", folder / "config.json")  # decides the tokenizer's class
    return folder


def test_old_ids_stay_and_new_pieces_follow(old, grown):
    new = AutoTokenizer.from_pretrained(str(grown))
    assert new(OLD_TEXT).input_ids == old(OLD_TEXT).input_ids
    assert [new.convert_tokens_to_ids(piece) for piece in NEW] == list(range(len(old), len(old) + len(NEW)))
    assert [new.convert_tokens_to_ids(t) for t in ("<image>", "<pad>")] == [800, 801] and new.pad_token_id == 801
    assert new.decode(new(NEW_TEXT, add_special_tokens=False).input_ids) == NEW_TEXT
    assert {"鱼", "鱼鱼", "▁Hump"} <= set(new.tokenize(NEW_TEXT))


def test_sentencepiece_alone_agrees_with_the_fast_file(grown, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    new = AutoTokenizer.from_pretrained(str(grown))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(grown / "tokenizer.model"))
    assert processor.encode(NEW_TEXT) == new(NEW_TEXT, add_special_tokens=False).input_ids
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(grown / name, tmp_path / name)
    bare = AutoTokenizer.from_pretrained(str(tmp_path))
    assert bare(NEW_TEXT, add_special_tokens=False).input_ids == new(NEW_TEXT, add_special_tokens=False).input_ids
    assert bare.convert_tokens_to_ids(["<image>", "<pad>"]) == [800, 801]


def test_pieces_that_would_change_old_prompts_are_refused(old):
    pieces = vocabulary.new_pieces(old, 60, scenes=12)
    assert not set(pieces) & set(old.get_vocab())
    for line in vocabulary.prompts(vocabulary.sample_example, 12, 0, ("",)):
        tokens = old.tokenize(line.strip(" "))
        assert not {a + b for a, b in zip(tokens, tokens[1:], strict=False)} & set(pieces)


def test_a_grown_model_keeps_its_answers_and_training_starts_from_it(tmp_path):
    start = tmp_path / "start"
    model = LlavaForConditionalGeneration.from_pretrained(ASSETS)
    old = AutoTokenizer.from_pretrained(str(ASSETS))
    vocabulary.extend_tokenizer(ASSETS, start, NEW)
    new = AutoTokenizer.from_pretrained(str(start))
    ids = torch.tensor([old("What color is the circle? ASSISTANT:").input_ids])
    with torch.no_grad():
        before = model(input_ids=ids).logits[..., : len(old)]
        after = vocabulary.grow(model, old, new)(input_ids=ids).logits
    torch.testing.assert_close(after[..., : len(old)], before)
    assert torch.equal(after.argmax(-1), before.argmax(-1))
    rows = model.get_input_embeddings().weight[len(old) : len(new)]
    assert rows.isfinite().all() and torch.pdist(rows.detach().float()).min() > 0.01
    model.save_pretrained(start)
    stage = Stage("short", 1, 2, Difficulty(8, 2), tokens=20, longest=40, wide=True, long=1.0)
    trainer = Trainer(new, [stage], tmp_path / "run", workers=0, start=start)
    for ours, theirs in zip(trainer.trainee.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.float())
    assert trainer.run()
    assert Trainer(new, [stage], tmp_path / "run", workers=0, start=start).state.stage == 1


def test_a_deeper_model_keeps_its_answers():
    model = LlavaForConditionalGeneration.from_pretrained(ASSETS)
    ids, deep = torch.arange(3, 60)[None], model.config.text_config.num_hidden_layers
    with torch.no_grad():
        before = model(input_ids=ids).logits
        vocabulary.deepen(model, deep + 2)
        after = model(input_ids=ids).logits
    assert torch.equal(before, after) and len(model.model.language_model.layers) == deep + 2
    assert model.config.text_config.num_hidden_layers == deep + 2
