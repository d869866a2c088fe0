"""The training view equals the plain model; the trainer checkpoints and resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from llava.train.__main__ import ASSETS
from llava.train.data import Prompt, SceneBatches, Stage
from llava.train.evaluate import accuracy
from llava.train.examples import Difficulty
from llava.train.nano import CLIP_MEAN, CLIP_STD, Trainee, initial_model, nano_config
from llava.train.trainer import Trainer, averaged_steps

TOWER = Stage("tower", 3, 2, Difficulty(8, 2), questions=False)
TALK = Stage("talk", 2, 2, Difficulty(8, 2), tokens=20, longest=40)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(ASSETS))


def test_training_view_equals_the_plain_model(tokenizer):
    trainee = Trainee(initial_model(nano_config(tokenizer), seed=1)).eval()
    stage = Stage("exam", 1, 2, Difficulty(24, 5, sign=0.5), full_prompt=True)
    batch = SceneBatches(Prompt(tokenizer), stage, 5, 0).batch(np.random.default_rng(3))
    text, model = batch["text"], trainee.model
    pixels = ((batch["pixels"].float() / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).permute(0, 3, 1, 2)
    placeholders = torch.full((batch["index"].shape[1],), model.config.image_token_id)
    with torch.no_grad():
        ours, _ = trainee.answers(trainee.features(batch["pixels"], batch["index"]), batch["index"], text)
        done = 0
        for row in range(len(pixels)):
            for block in range(text["ids"].shape[1]):
                learned = (text["target"][row, block] >= 0).nonzero()[:, 0]
                if len(learned) == 0:
                    continue
                ids = torch.cat([text["prefix"], placeholders, text["ids"][row, block, : learned[-1] + 1]])
                plain = model(input_ids=ids[None], pixel_values=pixels[row : row + 1]).logits[0, -len(learned) :]
                torch.testing.assert_close(ours[done : done + len(learned)], plain, atol=2e-5, rtol=1e-4)
                done += len(learned)
    assert done == len(ours) > 10


def test_batches_depend_on_seed_and_step_only(tokenizer):
    prompt = Prompt(tokenizer)
    one = list(SceneBatches(prompt, TOWER, 0, 0))
    resumed = list(SceneBatches(prompt, TOWER, 0, 2))
    assert torch.equal(one[2]["pixels"], resumed[0]["pixels"])
    assert not torch.equal(one[0]["pixels"], one[1]["pixels"])


def test_interrupted_training_continues_to_the_same_weights(tokenizer, tmp_path):
    stages = [TOWER, replace(TALK, average=3)]
    whole = Trainer(tokenizer, stages, tmp_path / "whole", workers=0)
    assert whole.run()
    for expected in ((0, 1), (0, 2), (1, 1)):
        halted = Trainer(tokenizer, stages, tmp_path / "halted", workers=0, minutes=0.0)
        assert not halted.run() and (halted.state.stage, halted.state.step) == expected
    again = Trainer(tokenizer, stages, tmp_path / "halted", workers=0)
    assert again.state == halted.state and again.run()
    assert (again.state.stage, again.state.images) == (2, whole.state.images)
    for a, b in zip(whole.trainee.parameters(), again.trainee.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "halted" / "log.jsonl").read_text().splitlines()]
    assert sum("hardware" in row for row in rows) == 4


def test_averaged_weights_are_half_way_between_those_before_and_after_a_stage(tokenizer, tmp_path):
    weights = []
    for number, stages in enumerate(([TOWER], [TOWER, TALK], [TOWER, replace(TALK, average=2)])):
        trainer = Trainer(tokenizer, stages, tmp_path / str(number), workers=0)
        assert trainer.run()
        weights.append(list(trainer.trainee.parameters()))
    for before, after, averaged in zip(*weights, strict=True):
        torch.testing.assert_close(averaged, (before + after) / 2, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(before, after) for before, after, _ in zip(*weights, strict=True))


def test_weights_are_averaged_at_equal_distances_and_their_files_go(tokenizer, tmp_path):
    assert averaged_steps(replace(TALK, steps=9, average=4)) == {0, 3, 6, 9}
    assert averaged_steps(TALK) == set()
    trainer = Trainer(tokenizer, [replace(TALK, average=3)], tmp_path, workers=0)
    before = [p.detach().clone() for p in trainer.trainee.parameters()]
    kept, keep = [before], trainer.keep

    def listen(stage):
        keep(stage)
        if trainer.state.step:
            kept.append([p.detach().clone() for p in trainer.trainee.parameters()])

    trainer.keep = listen
    assert trainer.run()
    for one, two, three, averaged in zip(*kept, trainer.trainee.parameters(), strict=True):
        torch.testing.assert_close(averaged, (one + two + three) / 3, atol=1e-6, rtol=1e-5)
    assert not list(tmp_path.glob("weights-*"))


def test_an_untrained_model_is_measured_as_knowing_nothing(tokenizer):
    trainee = Trainee(initial_model(nano_config(tokenizer))).eval()
    measured = accuracy(trainee, Prompt(tokenizer), TALK, batches=2)
    assert measured and all(share < 0.5 for share, _ in measured.values())
