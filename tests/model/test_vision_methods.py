"""What the methods that look into the vision tower give the language model, against a tower read by plain transformers.

Expected embeddings come from eager attention maps, hidden states and modules called one by one, and from the slow
versions of the methods.
"""

import functools
import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from llava import load
from llava.errors import UnsupportedModel
from llava.reduction import DART, Chain, FasterVLM, FiCoCoV, GlobalCom2, HiRED, PruMerge, PruMergePlus, ToMe, VisionZip
from tests import tiny
from tests.reduction import slow_vision
from tests.tiny import IMAGE, N_PATCHES, SIDE, TEXT, TOWER

GRID = (4, 4)
DEEP = {**TOWER, "num_hidden_layers": 5}  # the fourth block, number 3, feeds the projector
FEATURE = 3
KEEP = 6


@functools.cache
def llava(kernel: str = "eager"):
    return randomised(tiny.llava(tower=DEEP), kernel)


@functools.cache
def llava_next(kernel: str = "eager"):
    config = transformers.LlavaNextConfig(
        vision_config=DEEP,
        text_config={"model_type": "llama", **TEXT},
        image_token_id=IMAGE,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
        vision_feature_layer=-2,
    )
    return randomised((transformers.LlavaNextForConditionalGeneration, config), kernel)


def randomised(kind, kernel):
    torch.manual_seed(0)
    model = kind[0]._from_config(kind[1], attn_implementation=kernel).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms that matter
    return model


def given(method, model, batch):
    """The embeddings the decoder is given for the images of the first sample, and the report."""
    seen = []
    decoder = model.model.language_model
    hook = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with method(model) as pruning:
        model(**batch)
    hook.remove()
    return seen[0][0, 5:-7], pruning.last


def blocks(model):
    return model.model.vision_tower.encoder.layers


def tower(model, pixels):
    """Hidden states and attention maps of plain transformers."""
    return model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)


def projections(model, pixels, number):
    """Unscaled queries and keys of a block, (tiles, S, C) each."""
    block = blocks(model)[number]
    normed = block.layer_norm1(tower(model, pixels).hidden_states[number])
    return block.self_attn.q_proj(normed), block.self_attn.k_proj(normed)


def project(model, features):
    return model.model.multi_modal_projector(features)


def close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=2e-5)


@pytest.fixture
def batch():
    return tiny.inputs(tiny.ONE)


@pytest.fixture(params=("sdpa", "eager"))
def kernel(request):
    return request.param


class TestOneTile:
    def test_selection_by_attention(self, batch, kernel):
        seen = tower(llava(), batch["pixel_values"])
        best = seen.attentions[FEATURE][0, :, 0, 1:].sum(0).topk(KEEP).indices.sort().values
        expected = project(llava(), seen.hidden_states[FEATURE + 1][0, 1:][best])
        for method in (FasterVLM(keep=KEEP), HiRED(keep=KEEP)):
            embeddings, report = given(method, llava(kernel), batch)
            assert close(embeddings, expected) and report.indices[0][0].tolist() == best.tolist()

    def test_visionzip(self, batch, kernel):
        seen = tower(llava(), batch["pixel_values"])
        _, keys = projections(llava(), batch["pixel_values"], FEATURE)
        metric = keys[0].view(17, 4, 8).mean(1)
        dominant = {0, *(1 + seen.attentions[FEATURE][0, :, 0, 1:].sum(0).topk(KEEP - 3).indices).tolist()}
        merged = slow_vision.visionzip(seen.hidden_states[FEATURE + 1][0], metric, dominant, 2)
        embeddings, _ = given(VisionZip(keep=KEEP, contextual=2), llava(kernel), batch)
        assert close(embeddings, project(llava(), merged))

    @pytest.mark.parametrize("method", [PruMerge, PruMergePlus])
    def test_prumerge(self, batch, kernel, method):
        query, keys = projections(llava(), batch["pixel_values"], FEATURE + 1)
        scores = (query[0, 0] @ keys[0].T / 32**0.5).softmax(0)[1:]
        centres = scores.topk(KEEP if method is PruMerge else KEEP // 2).indices.tolist()
        if method is PruMergePlus:
            centres += [2, 7, 12]  # from half a step of int(16 / 3), below the last patch
        features = tower(llava(), batch["pixel_values"]).hidden_states[FEATURE + 1][0, 1:]
        expected = slow_vision.prumerge(features, scores, keys[0, 1:], centres, 4)
        embeddings, report = given(method(keep=KEEP, neighbours=4), llava(kernel), batch)
        assert close(embeddings, project(llava(), expected)) and report.final == [KEEP + 1]

    @pytest.mark.parametrize("prop_attn", [True, False])
    def test_tome(self, batch, kernel, prop_attn):
        x, sizes = first_hidden(llava(), batch["pixel_values"]), [1.0] * 17
        for block, r in zip(blocks(llava()), (3, 3, 2, 2), strict=False):
            x, _, keys = attended(block, x, torch.tensor(sizes).log() if prop_attn else 0)
            x, sizes = slow_vision.tome(keys.view(len(keys), 4, 8).mean(1), x, sizes, r)
            x = x + block.mlp(block.layer_norm2(x))
        embeddings, report = given(ToMe(keep=6, prop_attn=prop_attn), llava(kernel), batch)
        assert close(embeddings, project(llava(), x[1:])) and report.final == [6]

    @pytest.mark.parametrize("variant", ["official", "clean"])
    def test_ficoco_v(self, batch, kernel, variant):
        x, buffer, cells = first_hidden(llava(), batch["pixel_values"]), [1e9] * N_PATCHES, list(range(N_PATCHES))
        for number, block in enumerate(blocks(llava())[: FEATURE + 1]):
            x, query, keys = attended(block, x)
            r = {2: 5, 3: 4}.get(number)
            logits = query @ keys.T * 8**-0.5 / 4  # width of a head, heads
            if r and variant == "official":
                x = slow_vision.ficoco_official(logits, x, buffer, GRID, r, 0.35, 0.9)
            elif r:
                left, x = slow_vision.ficoco_clean(logits, x, cells, GRID, r, 0.35, 0.9)
                cells = [cells[position - 1] for position in left[1:]]
            x = x + block.mlp(block.layer_norm2(x))
        embeddings, report = given(FiCoCoV(keep=7, variant=variant, quantile=0.9), llava(kernel), batch)
        assert close(embeddings, project(llava(), x[1:])) and report.final == [7]
        if variant == "clean":
            assert report.indices[0][0].tolist() == cells

    def test_globalcom2_clean_treats_the_image_as_the_thumbnail(self, batch, kernel):
        query, keys = projections(llava(), batch["pixel_values"], FEATURE + 1)
        best = (query[0, 0] @ keys[0, 1:].T).topk(KEEP).indices
        _, report = given(GlobalCom2(keep=KEEP, variant="clean"), llava(kernel), batch)
        assert report.indices[0][0].tolist() == sorted(best.tolist())

    def test_globalcom2_official_is_refused(self):
        with pytest.raises(UnsupportedModel, match="tiles of an image.*variant='clean'.*fastervlm"):
            GlobalCom2()(llava())


def first_hidden(model, pixels):
    return tower(model, pixels).hidden_states[0][0]


def attended(block, x, bias=0):
    """The residual stream after a block's attention, written out; and its queries and keys."""
    attention, normed = block.self_attn, block.layer_norm1(x)
    query, key, value = (
        projection(normed).view(len(x), 4, 8).transpose(0, 1)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = (query @ key.transpose(1, 2) * 8**-0.5 + bias).softmax(-1) @ value
    flat = [part.transpose(0, 1).reshape(len(x), 32) for part in (mixed, query, key)]
    return x + attention.out_proj(flat[0]), flat[1], flat[2]


METHODS = {
    "fastervlm": FasterVLM(keep=0.25),
    "fastervlm-clean": FasterVLM(keep=18, variant="clean"),
    "hired": HiRED(keep=20),
    "hired-exact": HiRED(keep=20, budget="exact", allocation="spatial"),
    "visionzip": VisionZip(keep=0.5),
    "prumerge": PruMerge(keep=0.25),
    "prumerge_plus-adaptive": PruMergePlus(),
    "globalcom2": GlobalCom2(),
    "globalcom2-exact": GlobalCom2(keep=30, variant="clean", budget="exact"),
    "tome": ToMe(keep=0.25),
    "tome-count": ToMe(keep=22),
    "ficoco_v": FiCoCoV(keep=0.25),
}
COUNTS = {  # of 16 tokens a tile: five tiles; three and five
    "fastervlm": [20, 12 + 20],
    "fastervlm-clean": [18, 36],
    "hired-exact": [20, 40],
    "visionzip": [40, 24 + 40],
    "prumerge": [25, 15 + 25],
    "globalcom2-exact": [30, 60],
    "tome": [20, 12 + 20],
    "tome-count": [20, 21 + 20],
    "ficoco_v": [20, 12 + 20],
}
SIZES = ((40, 44), (20, 46), (46, 30))  # 2 x 2 crops with padding above; 1 x 2; 2 x 2 with padding at the sides
N_TILES = (5, 3, 5)


def next_inputs(model, samples):
    """Left-padded prompts of LLaVA-NeXT with the images of each sample, given by number."""
    numbers = [number for sample in samples for number in sample]
    pixels = torch.zeros(len(numbers), 5, 3, SIDE, SIDE)
    for image, number in zip(pixels, numbers, strict=True):
        generator = torch.Generator().manual_seed(number)
        image[: N_TILES[number]] = torch.randn(N_TILES[number], 3, SIDE, SIDE, generator=generator)
    sizes = torch.tensor([SIZES[number] for number in numbers])
    features = model.model.get_image_features(pixels, sizes, return_dict=True).pooler_output
    lengths = {number: len(each) for number, each in zip(numbers, features, strict=True)}
    rows = [[5] * 5 + [token for n in sample for token in [IMAGE] * lengths[n] + [6] * 7] for sample in samples]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "image_sizes": sizes}


class TestTiles:
    @pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
    def test_batch_equals_one_by_one(self, method):
        model = llava_next("sdpa")
        with method(model) as pruning:
            together = tiny.generate(model, next_inputs(model, [[0], [1, 2]]), 2)
            kept = pruning.last.final
            for row, sample in enumerate([[0], [1, 2]]):
                apart = tiny.generate(model, next_inputs(model, [sample]), 2)
                assert pruning.last.final == [kept[row]]
                for step in range(2):
                    assert tiny.error(apart.logits[step][0], together.logits[step][row]) < 5e-5

    @pytest.mark.parametrize("name, expected", COUNTS.items())
    def test_counts(self, name, expected):
        model = llava_next("sdpa")
        with METHODS[name](model) as pruning:
            model(**next_inputs(model, [[0], [1, 2]]))
        assert pruning.last.final == expected

    def test_all_of_it_changes_nothing(self):
        model = llava_next("sdpa")
        batch = next_inputs(model, [[0], [1, 2]])
        untouched = model(**batch).logits
        for kind in (FasterVLM, HiRED, VisionZip, PruMerge, GlobalCom2, ToMe, FiCoCoV):
            with kind(keep=1.0)(model):
                assert torch.equal(model(**batch).logits, untouched), kind

    def test_fastervlm_reads_crops_as_one_canvas(self):
        model = llava_next()
        batch = next_inputs(model, [[0]])
        pixels = batch["pixel_values"][0]
        seen = tower(model, pixels)
        features = project(model, seen.hidden_states[FEATURE + 1][:, 1:])
        best = seen.attentions[FEATURE][:, :, 0, 1:].mean(1).topk(4).indices.tolist()
        expected = [features[0, token] for token in sorted(best[0])]
        for row in range(8):
            for column in range(8):
                tile, token = 1 + row // 4 * 2 + column // 4, row % 4 * 4 + column % 4
                if token in best[tile]:
                    expected.append(features[tile, token])
        assert close(given(FasterVLM(keep=0.25), model, batch)[0], torch.stack(expected))

    def test_hired_shares_by_the_first_block_and_unpads(self):
        model = llava_next()
        batch = next_inputs(model, [[0]])
        seen = tower(model, batch["pixel_values"][0])
        late = seen.attentions[FEATURE][:, :, 0, 1:].sum(1)
        voters = seen.attentions[0][0, :, 0, 1:].sum(0).topk(8).indices
        quotas = [int(((voters // 4) == band).sum() / 8 * 10) for band in range(4)]
        chosen = {0: late[0].topk(10).indices.tolist()}
        chosen |= {1 + crop: late[1 + crop].topk(quota).indices.tolist() for crop, quota in enumerate(quotas)}
        features = project(model, seen.hidden_states[FEATURE + 1][:, 1:])
        expected = [features[0, token] for token in sorted(chosen[0])]
        for row in range(8):  # 40 x 44 pixels on 8 x 8 tokens: int(40 * 8 / 44) = 7 rows, no margin of a whole token
            for column in range(8):
                tile, token = 1 + row // 4 * 2 + column // 4, row % 4 * 4 + column % 4
                if token in chosen[tile]:
                    expected.append(features[tile, token])
        assert close(given(HiRED(keep=20), model, batch)[0], torch.stack(expected))

    def test_tome_and_ficoco_flatten_tiles(self):
        """Every tile is merged as if it were alone; they follow each other, the thumbnail first, without newlines."""
        model, single = llava_next(), llava()
        single.model.vision_tower.load_state_dict(model.model.vision_tower.state_dict())
        single.model.multi_modal_projector.load_state_dict(model.model.multi_modal_projector.state_dict())
        try:
            batch = next_inputs(model, [[1]])
            for method in (ToMe(keep=0.25), FiCoCoV(keep=0.25)):
                tiles = []
                for tile in range(3):
                    alone = {**tiny.inputs(tiny.ONE), "pixel_values": batch["pixel_values"][0, tile : tile + 1]}
                    tiles.append(given(method, single, alone)[0])
                assert close(given(method, model, batch)[0], torch.cat(tiles))
        finally:
            llava.cache_clear()


ONE_OF_EACH = (FasterVLM, HiRED, VisionZip, PruMerge, PruMergePlus, ToMe, FiCoCoV)


@functools.cache
def llava_without_cls():
    siglip = {key: value for key, value in DEEP.items() if key != "projection_dim"}
    model_class, config = tiny.llava()
    config = transformers.LlavaConfig(
        vision_config={**siglip, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=config.text_config,
        image_token_id=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
    )
    return randomised((model_class, config), "sdpa")


class TestOtherTowersAndTypes:
    @pytest.mark.parametrize("kind", [kind for kind in (*ONE_OF_EACH, GlobalCom2) if kind is not ToMe])
    def test_without_cls_they_are_refused_by_name(self, kind):
        with pytest.raises(UnsupportedModel, match=r"\[CLS\].*has none.*Methods that need none: dart.*divprune.*tome"):
            kind()(llava_without_cls())

    def test_tome_works_without_cls(self, batch):
        embeddings, report = given(ToMe(keep=5), llava_without_cls(), batch)
        assert len(embeddings) == 5 and report.final == [5]

    @pytest.mark.parametrize("kind", ONE_OF_EACH)
    def test_half_precision(self, batch, kind):
        model = randomised(tiny.llava(tower=DEEP), "sdpa").to(torch.bfloat16)
        batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
        method = kind(keep=8)
        embeddings, report = given(method, model, batch)
        assert embeddings.dtype == torch.bfloat16 and embeddings.isfinite().all()
        assert report.final == [method.n_kept(N_PATCHES)]

    def test_merging_in_the_tower_before_a_cut_in_the_model(self, batch):
        for first in (FiCoCoV(keep=10), ToMe(keep=10), VisionZip(keep=10)):
            with Chain(first, DART(keep=4, budget="exact"))(llava("sdpa")) as pruning:
                llava("sdpa")(**batch)
            assert pruning.last.kept == [[10], [4]]


POPE = Path(__file__).parents[2] / "playground" / "data" / "eval" / "pope" / "mini"


@pytest.fixture(scope="module")
def embedded():
    model, processor = load()
    rows = [json.loads(line) for line in (POPE / "llava_pope_test.jsonl").read_text().splitlines()][:2]
    images = [[Image.open(POPE / "val2014" / row["image"]).convert("RGB")] for row in rows]
    return model, processor, processor([processor.prompt(row["text"]) for row in rows], images)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_presets_on_the_embedded_model(embedded, kind):
    model, processor, inputs = embedded
    # Nothing in LLaVA reads the last block of the tower: the embedded one's was never trained.
    options = {"layer": -2} if issubclass(kind, PruMerge) else {}
    whole = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    for preset in ("192", "128", "64"):
        with kind.preset(preset, **options)(model) as pruning:
            output = model.generate(**inputs, max_new_tokens=1, do_sample=False)
        assert pruning.last.final == [int(preset) + issubclass(kind, PruMerge)] * 2
        if preset == "192":
            assert torch.equal(output, whole)
