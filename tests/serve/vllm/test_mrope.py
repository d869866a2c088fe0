"""Positions of a shortened prompt in vLLM's terms, against those transformers gives the whole prompt."""

import pytest
import torch
import transformers

from llava.serve.vllm import mrope
from tests.model import qwen_vl_folder

IMAGE, VIDEO, START = 99, 98, 97


@pytest.fixture(scope="module")
def body():
    """Without weights: positions need none."""
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START}
    config = transformers.Qwen2VLConfig(
        vision_config=qwen_vl_folder.VISION["qwen2_vl"], text_config={**qwen_vl_folder.TEXT, "vocab_size": 100}, **ids
    )
    with torch.device("meta"):
        return transformers.Qwen2VLModel(config)


def whole_prompt(body, parts):
    """ids and positions of a prompt of numbers of text tokens and grids of pictures (time, rows, columns)."""
    ids, images, videos = [], [], []
    for part in parts:
        if isinstance(part, int):
            ids += [5] * part
            continue
        frames, rows, columns = part
        ids += [IMAGE if frames == 1 else VIDEO] * (frames * rows * columns)
        (images if frames == 1 else videos).append([frames, 2 * rows, 2 * columns])
    ids = torch.tensor([ids])
    grids = {
        "image_grid_thw": torch.tensor(images) if images else None,
        "video_grid_thw": torch.tensor(videos) if videos else None,
    }
    kinds = (ids == IMAGE) * 1 + (ids == VIDEO) * 2
    positions, delta = body.get_rope_index(ids, mm_token_type_ids=kinds.int(), **grids)
    return ids[0], positions[:, 0], int(delta)


def shortened(parts, keep, seed=0):
    """Columns of the whole prompt that go on, the media in the short one, and what is kept of each image."""
    generator = torch.Generator().manual_seed(seed)
    columns, media, kept, first = [], [], [], 0
    for part in parts:
        if isinstance(part, int):
            columns += range(first, first + part)
            first += part
            continue
        n = part[0] * part[1] * part[2]
        own = torch.randperm(n, generator=generator)[:keep].sort().values if part[0] == 1 else torch.arange(n)
        media.append(mrope.Media(len(columns), len(own), part))
        kept.append((own, part))
        columns += (first + own).tolist()
        first += n
    return torch.tensor(columns), media, kept


PROMPTS = {
    "wide": [3, (1, 2, 7), 4],
    "tall": [3, (1, 7, 2), 4],
    "two images": [2, (1, 3, 4), 1, (1, 5, 2), 3],
    "a video between": [2, (1, 4, 3), 2, (2, 2, 3), 1, (1, 2, 4), 2],
    "kept whole": [1, (1, 1, 3), 2],
    "no text before": [(1, 4, 4), 2],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PROMPTS)
def test_kept_tokens_have_the_positions_of_the_whole_prompt(body, name, dtype):
    ids, whole, _ = whole_prompt(body, PROMPTS[name])
    columns, media, kept = shortened(PROMPTS[name], keep=5)
    n_short = len(columns)
    first, delta = mrope.prompt_positions(n_short, media)
    text = (ids[columns] != IMAGE) & (ids[columns] != VIDEO)
    assert torch.equal(first[:, text], whole[:, columns[text]]), "the text is right before anything is encoded"
    assert n_short + delta == int(whole.max()) + 1
    packed = [mrope.packed(torch.randn(len(own), 6).to(dtype), own, grid) for own, grid in kept]
    items = [mrope.unpacked(item)[1] for item in packed]
    done = mrope.with_places(first, ids[columns], 0, items, IMAGE, VIDEO)
    assert torch.equal(done, whole[:, columns])
    assert torch.equal(mrope.with_places(done, ids[columns], 0, items, IMAGE, VIDEO), done), "a second time"


def test_a_prompt_computed_in_chunks_gets_the_same_positions(body):
    parts = PROMPTS["two images"]
    ids, whole, _ = whole_prompt(body, parts)
    columns, media, kept = shortened(parts, keep=5)
    positions, _ = mrope.prompt_positions(len(columns), media)
    places = [mrope.unpacked(mrope.packed(torch.zeros(len(own), 2), own, grid))[1] for own, grid in kept]
    # Chunks end within the first image (2 text + 3 of 5 tokens) and within the second one.
    for n_done, items in ((0, [places[0][:, :3]]), (5, [places[0][:, 3:], places[1][:, :2]]), (10, [places[1][:, 2:]])):
        positions = mrope.with_places(positions, ids[columns], n_done, items, IMAGE, VIDEO)
    assert torch.equal(positions, whole[:, columns])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_keep_their_values_and_large_grids_their_places(dtype):
    features = torch.randn(3, 4).to(dtype)
    grid = (1, 300, 1000)
    indices = torch.tensor([0, 257 * 1000 + 999, 299 * 1000 + 513])
    back, places = mrope.unpacked(mrope.packed(features, indices, grid))
    assert torch.equal(back, features)
    assert places.tolist() == [[0, 257, 299], [0, 999, 513]]
