"""Video-LLaVA's own: token counts of the card, frames, prompt, images and videos mixed, the 50 % setting."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

import llava
from llava import DART
from llava.errors import BadInput, CheckpointError
from llava.model.conversation import LLAVA_V1
from llava.model.processing.video_llava import VideoLlavaProcessor
from llava.model.video import evenly
from tests.model import media_reference as media
from tests.model.llava_folder import CLIP_MEAN, CLIP_STD, official_ids
from tests.model.video_llava_folder import FRAMES, IMAGE_TOKENS, SIDE, VIDEO_TOKENS, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Video-LLaVA-7B-hf")


@pytest.fixture(scope="module")
def loaded(folder):
    return llava.load(folder, device="cpu")


def test_counts_of_the_card_for_any_size(loaded):
    """256 for an image, 8 x 257 for a video, whatever their sizes."""
    tokenizer = loaded[1].tokenizer
    processor = VideoLlavaProcessor(
        tokenizer,
        image_size=224,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
        n_visual=256,
        n_frame=257,
        n_frames=8,
        image_token_id=loaded[1].image_token_id,
        video_token_id=loaded[1].video_token_id,
    )
    sizes = [
        (224, 224),
        (640, 480),
        (480, 640),
        (30, 900),
        (1000, 100),
        (2, 2),
        (336, 336),
        (225, 223),
        (64, 48),
        (7, 5),
    ]
    for number, (width, height) in enumerate(sizes):
        film = np.zeros((number + 1, height, width, 3), np.uint8)
        prompt = processor.prompt("x", 1, 1)
        batch = processor(prompt, [[Image.new("RGB", (width, height))]], [[film]])
        assert (batch["input_ids"] == processor.image_token_id).sum() == 256
        assert (batch["input_ids"] == processor.video_token_id).sum() == 2056
        assert batch["pixel_values_videos"].shape == (1, 8, 3, 224, 224)


def test_half_of_the_tokens_as_in_the_papers_table_5():
    """The released rule gives 1028 for a video, from the ratio and from the paper's 1024."""
    assert DART.from_released("llava", reduction_ratio=0.5).n_kept(2056) == 1028
    assert DART.from_released("llava", max_num_tokens=1024).n_kept(2056) == 1028


class TestPrompt:
    def test_prompt_of_the_card(self, loaded):
        _, processor = loaded
        assert processor.template is LLAVA_V1
        assert processor.prompt("What happens?", 0, 1) == (
            "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
            "detailed, and polite answers to the human's questions. USER: <video>\nWhat happens? ASSISTANT:"
        )

    def test_ids_are_pieces_around_the_block(self, loaded):
        _, processor = loaded
        prompt = processor.prompt("What happens?", 0, 1)
        before, after = prompt.split("<video>")
        expected = [1, *official_ids(before), *[processor.video_token_id] * VIDEO_TOKENS, *official_ids(after)]
        assert processor(prompt, videos=[[media.film()]])["input_ids"].tolist() == [expected]

    def test_images_and_videos_in_the_order_of_the_text(self, loaded):
        _, processor = loaded
        text = "<video> then <image> or <video>?"
        batch = processor(processor.prompt(text, 1, 2), [[media.picture()]], [[media.film(), media.film(3, seed=1)]])
        visual = [i for i in batch["input_ids"][0].tolist() if i in processor.placeholders]
        image, video = processor.image_token_id, processor.video_token_id
        assert visual == [video] * VIDEO_TOKENS + [image] * IMAGE_TOKENS + [video] * VIDEO_TOKENS
        model = loaded[0]
        with torch.no_grad(), DART(keep=0.5, pivots_visual=1, pivots_text=1)(model) as pruning:
            model(**batch)
        assert [len(kept) for kept in pruning.last.indices[0]] == [21, 3, 21]  # 1 + 2 * (n / 2 // 2)

    def test_without_videos_the_marker_is_refused_since_it_would_become_a_placeholder(self, loaded):
        _, processor = loaded
        with pytest.raises(BadInput, match="<video>"):
            processor(processor.prompt("What is a <video> tag?", 0))

    def test_numbers_that_differ(self, loaded):
        _, processor = loaded
        with pytest.raises(BadInput, match="1 <video> markers but there are 2 videos"):
            processor.prompt("<video> what?", 0, 2)


class TestFrames:
    @pytest.mark.parametrize(
        ("n_frames", "numbers"),
        [
            (8, [0, 1, 2, 3, 4, 5, 6, 7]),
            (100, [0, 14, 28, 42, 56, 70, 84, 99]),
            (3, [0, 0, 0, 0, 1, 1, 1, 2]),
            (1, [0] * 8),
        ],
    )
    def test_even_sampling_rounds_down(self, n_frames, numbers):
        assert evenly(n_frames, 8) == numbers

    def test_pixels_are_those_of_clip(self, loaded):
        """Short side resized, middle cropped: what CLIP's processor does with every frame."""
        _, processor = loaded
        frames = media.film(8, 60)[:, :45]
        mine = processor(processor.prompt("x", 0, 1), videos=[[frames]])["pixel_values_videos"][0]
        clip = CLIPImageProcessor(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=CLIP_MEAN,
            image_std=CLIP_STD,
        )
        theirs = clip([Image.fromarray(frame) for frame in frames], return_tensors="pt")["pixel_values"]
        assert mine.shape == (FRAMES, 3, SIDE, SIDE)
        assert (mine - theirs).abs().max() < 1e-5


class TestBadCheckpoints:
    def test_original_format_is_told(self, tmp_path):
        config = {"model_type": "llava", "mm_image_tower": "LanguageBind/LanguageBind_Image", "mm_video_tower": "x"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="LanguageBind/Video-LLaVA-7B-hf"):
            llava.load(tmp_path)

    def test_a_length_that_does_not_fit(self, folder, tmp_path):
        copy = write_checkpoint(tmp_path)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "video_seq_length": 41}))
        with pytest.raises(CheckpointError, match="video_seq_length is 41"):
            llava.load(copy, device="cpu")
