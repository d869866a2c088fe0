"""Qwen-VL's own: sizes and counts of the model card, patches, prompt, three-row positions, videos, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import llava
from llava import DART
from llava.errors import BadInput, CheckpointError, ConfigurationError
from llava.model.processing.patches import PatchGrid, fitted_size
from llava.model.processing.qwen_vl import VideoRules
from tests import tiny
from tests.model import media_reference as media
from tests.model.qwen_vl_folder import write_checkpoint

HUB = (3136, 12_845_056)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Qwen2-VL")


@pytest.fixture(scope="module")
def loaded(folder):
    return llava.load(folder, device="cpu")


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "limit", "resized", "tokens"),
        [  # the model card; the last four numbers are the official function's, worked out by hand
            ((640, 480), HUB[1], (644, 476), 391),
            ((500, 375), HUB[1], (504, 364), 234),
            ((336, 336), HUB[1], (336, 336), 144),
            ((1024, 768), HUB[1], (1036, 756), 999),
            ((1024, 768), 602_112, (896, 672), 768),
            ((1920, 1080), 2_408_448, None, 2691),
            ((1920, 1080), 1_003_520, None, 1222),
            ((1920, 1080), 602_112, None, 720),
            ((28, 28), HUB[1], (56, 56), 4),
            ((14, 42), HUB[1], (56, 112), 8),
            ((42, 56), HUB[1], (56, 56), 4),  # 1.5 rounds to 2
            ((70, 70), HUB[1], (56, 56), 4),  # 2.5 rounds to the even 2
        ],
    )
    def test_counts_of_the_card(self, size, limit, resized, tokens):
        width, height = fitted_size(size, 28, HUB[0], limit)
        assert (width // 28) * (height // 28) == tokens and width % 28 == height % 28 == 0
        assert resized is None or (width, height) == resized

    def test_counts_of_the_library(self, loaded):
        _, processor = loaded
        library = Qwen2VLImageProcessorPil(min_pixels=HUB[0], max_pixels=HUB[1])
        for width, height in np.random.default_rng(0).integers(20, 5000, (40, 2)).tolist():
            expected = library.get_number_of_image_patches(height, width) // 4
            assert processor.n_visual((width, height)) == expected

    def test_narrow_pictures_are_refused(self):
        with pytest.raises(BadInput, match="4500 x 20.*200"):
            fitted_size((4500, 20), 28, *HUB)


class TestPatches:
    @pytest.mark.parametrize("size", [(112, 84), (100, 130), (56, 56)])
    def test_an_image_equals_the_library(self, loaded, size):
        _, processor = loaded
        image = media.picture(*size)
        mine = processor(processor.prompt("x"), [[image]])
        library = Qwen2VLImageProcessorPil(min_pixels=HUB[0], max_pixels=HUB[1])(image, return_tensors="pt")
        assert mine["image_grid_thw"].tolist() == library["image_grid_thw"].tolist()
        assert (mine["pixel_values"] - library["pixel_values"]).abs().max() < 1e-5

    def test_places_of_a_film(self):
        """Every value says where it came from: frame, row, column, channel."""
        grid = PatchGrid(2, 2, 2, (0.0,) * 3, (1 / 255,) * 3)
        frames = np.zeros((3, 4, 8, 3), np.uint8)
        frames[:] = np.arange(3)[:, None, None, None] * 64 + np.arange(4)[:, None, None] * 16 + np.arange(8)[:, None]
        rows, shape = grid.rows([media.Image.fromarray(frame) for frame in frames], (8, 4))
        assert shape.tolist() == [[2, 2, 4]] and rows.shape == (16, 3 * 2 * 2 * 2)
        values = rows.view(2, 2, 4, 3, 2, 2, 2)  # time, token in a time step, patch in a token, channel, frame, y, x
        # Second time step repeats the last frame; second token: columns 4 and on; third patch: second row of patches.
        assert values[1, 1, 2, 0, :, 0, 0].tolist() == [2 * 64 + 2 * 16 + 4] * 2
        assert values[0, 0, 1, 2, 1].round().tolist() == [[64 + 2, 64 + 3], [64 + 18, 64 + 19]]


class TestPrompt:
    def test_prompt_of_the_card(self, loaded):
        _, processor = loaded
        picture, film = media.picture(112, 84), media.film()
        assert processor.prompt("Is it red?", 1) == (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><|image_pad|><|vision_end|>Is it red?<|im_end|>\n<|im_start|>assistant\n"
        )
        prompt = processor.prompt([("What is it?", "A cat."), ("And <video>?", None)], 0, 1)
        assert prompt.endswith(
            "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n<|im_start|>user\n"
            "And <|vision_start|><|video_pad|><|vision_end|>?<|im_end|>\n<|im_start|>assistant\n"
        )
        batch = processor([processor.prompt("x", 1), prompt], [[picture], []], [[], [film]])
        assert (batch["input_ids"] == processor.image_id).sum(1).tolist() == [12, 0]
        assert (batch["mm_token_type_ids"] == 1).sum(1).tolist() == [12, 0]
        assert (batch["mm_token_type_ids"] == 2).sum(1).tolist() == [0, int(batch["video_grid_thw"].prod()) // 4]

    def test_text_with_placeholders_of_its_own_is_refused(self, loaded):
        _, processor = loaded
        with pytest.raises(BadInput, match="1 <.image_pad.> markers but 0 images"):
            processor(processor.prompt("What is <|image_pad|>?", 0))

    def test_qwen3_writes_the_time_before_every_frame(self, tmp_path):
        _, processor = media.load(media.write(tmp_path, "qwen3_vl"))
        ids = processor(processor.prompt("What?", 0, 1), videos=[[media.film(6)]])["input_ids"][0]
        text = processor.tokenizer.decode([i for i in ids.tolist() if i != processor.video_id])
        # Four of six frames at the assumed 24 per second: 0, 2, 3, 5; two frames make one step.
        empty = "<|vision_start|><|vision_end|>"
        assert text == (
            f"<|im_start|>user\n<0.0 seconds>{empty}<0.2 seconds>{empty}What?<|im_end|>\n<|im_start|>assistant\n"
        )


class TestPositions:
    def expected(self, n_before, rows, columns, n_after):
        """The model card's rule, token by token."""
        positions = [(p, p, p) for p in range(n_before)]
        positions += [(n_before, n_before + row, n_before + column) for row in range(rows) for column in range(columns)]
        after = n_before + max(rows, columns)
        return torch.tensor(positions + [(after + i,) * 3 for i in range(n_after)]).T

    def test_are_those_of_the_unpruned_run(self, loaded):
        model, processor = loaded
        batch = processor(processor.prompt("Is it red?"), [[media.picture(112, 84)]])
        ids = batch["input_ids"][0]
        first = ids.tolist().index(processor.image_id)
        seen = []
        rotary = model.model.language_model.rotary_emb
        hook = rotary.register_forward_pre_hook(lambda _, args: seen.append(args[1][-3:].clone()))
        with DART(keep=0.5, pivots_visual=1, pivots_text=1)(model) as pruning:
            tiny.generate(model, batch, 3)
        pruned, seen = seen, []
        hook.remove()
        hook = rotary.register_forward_pre_hook(lambda _, args: seen.append(args[1][-3:].clone()))
        tiny.generate(model, batch, 3)
        hook.remove()
        assert pruning.last.final[0] < 12 and len(pruned) == len(seen) == 3
        assert all(torch.equal(a, b) for a, b in zip(pruned, seen, strict=True))
        expected = self.expected(first, 3, 4, len(ids) - first - 12)
        assert torch.equal(pruned[0][:, 0], expected)
        assert [step[:, 0, 0].tolist() for step in pruned[1:]] == [[int(expected.max()) + i] * 3 for i in (1, 2)]


class TestSettings:
    def test_ratio_rule(self):
        """Released rule: 4 + 8 * int(n * (1 - r) / 8); the budget is ignored."""
        for n, ratio, kept in ((391, 0.5, 196), (1222, 0.778, 4 + 8 * 33), (234, 2 / 3, 4 + 8 * 9)):
            assert DART.from_released("qwen2_vl", ratio, 128).n_kept(n) == kept

    def test_limits_come_from_the_checkpoint_and_can_be_set(self, folder):
        _, processor = llava.load(folder, device="cpu")
        assert processor.settings() == {"min_pixels": 3136, "max_pixels": 12_845_056}
        processor.configure(max_pixels=602_112)
        assert processor.n_visual((1024, 768)) == 768
        for wrong in ({"min_pixels": 0}, {"max_pixels": 10}, {"min_pixels": 700_000}):
            with pytest.raises(ConfigurationError, match="min_pixels"):
                processor.configure(**wrong)

    def test_limits_under_their_new_names(self, tmp_path):
        folder = write_checkpoint(tmp_path, "qwen3_vl")
        assert llava.load(folder, device="cpu")[1].settings() == {"min_pixels": 65536, "max_pixels": 16_777_216}

    def test_checkpoints_that_contradict_themselves(self, tmp_path):
        folder = write_checkpoint(tmp_path, patch_size=16)
        with pytest.raises(CheckpointError, match="patch_size is 16 in preprocessor_config.json but 14"):
            llava.load(folder, device="cpu")
        folder = write_checkpoint(tmp_path)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "image_token_id": 5}))
        with pytest.raises(CheckpointError, match="placeholders"):
            llava.load(folder, device="cpu")


class TestVideos:
    @pytest.mark.parametrize(
        ("n_frames", "fps", "numbers"),
        [  # worked out with the official `smart_nframes` and `linspace(...).round()`
            (100, 25.0, [0, 14, 28, 42, 57, 71, 85, 99]),  # 4 s at 2 a second
            (10, 30.0, [0, 3, 6, 9]),  # at least 4
            (3, 30.0, [0, 2]),
            (1, 30.0, [0, 0]),
            (35, 10.0, [0, 7, 14, 20, 27, 34]),  # 7 frames, rounded down to 6
        ],
    )
    def test_sampling(self, n_frames, fps, numbers):
        assert VideoRules().choose(n_frames, fps, 2) == numbers

    def test_sizes(self):
        grid = PatchGrid(14, 2, 2, (0.5,) * 3, (0.5,) * 3)
        rules = VideoRules()
        assert rules.size((1920, 1080), grid, 8) == (1008, 560)  # 768 tokens a frame at most: 36 x 20
        assert rules.size((64, 64), grid, 8) == (336, 336)  # 128 at least: 12 x 12
        width, height = rules.size((1920, 1080), grid, 768)  # 300 tokens for each of 384 time steps
        assert width * height / 784 <= 300
        assert replace(rules, smallest=1).size((64, 64), grid, 4) == (56, 56)

    def test_seconds_between_frames(self, tmp_path):
        _, processor = media.load(media.write(tmp_path, "qwen2_5_vl"))
        batch = processor(processor.prompt("x", 0, 1), videos=[[media.film(24)]])
        # One second of 24 frames sampled at 4: two frames of a time step are half a second.
        assert batch["second_per_grid_ts"].tolist() == [0.5]
