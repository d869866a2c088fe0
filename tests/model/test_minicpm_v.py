"""MiniCPM-V 2.6: token counts of its card, prompt, a slow reference of the whole model, strict loading."""

import numpy as np
import pytest
import torch
from PIL import Image

import llava
from llava.errors import BadInput, CheckpointError
from llava.model.minicpm_v.config import MiniCPMVConfig
from llava.model.minicpm_v.model import MiniCPMV
from llava.model.minicpm_v.resampler import Resampler, place_vectors
from llava.model.minicpm_v.slicing import Slicing
from llava.model.minicpm_v.tower import table_places
from tests.model import minicpm_v_folder as original
from tests.model.minicpm_v_reference import grid_of, language_model, view_tokens

FULL_SIZE = Slicing(scale_resolution=448, patch_size=14, max_slices=9)
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return original.write_checkpoint(tmp_path_factory.mktemp("minicpm") / "MiniCPM-V-2_6")


@pytest.fixture(scope="module")
def loaded(folder):
    return llava.load(folder, device="cpu")


def image(width, height):
    return Image.fromarray(RANDOM.integers(0, 255, (height, width, 3), dtype=np.uint8))


def written(processor, prompt, sizes):
    """The prompt with every image written out."""
    return processor.written_out(prompt, [processor.image_text(number, size) for number, size in enumerate(sizes)])


class TestSlicing:
    @pytest.mark.parametrize(
        ("size", "grid", "tokens"),
        [  # the table of the model card
            ((448, 448), None, 64),
            ((336, 336), None, 64),
            ((500, 375), None, 64),
            ((640, 480), (2, 1), 192),
            ((480, 640), (1, 2), 192),
            ((1000, 300), (3, 1), 256),
            ((672, 672), (2, 2), 320),
            ((1024, 768), (2, 2), 320),
            ((1920, 1080), (4, 2), 576),
            ((8000, 6000), (3, 3), 640),
            ((6, 300), None, 64),
        ],
    )
    def test_tokens_of_the_card(self, size, grid, tokens):
        assert FULL_SIZE.grid(size) == grid
        assert 64 * FULL_SIZE.n_views(size) == tokens

    def test_grid_equals_the_rule_followed_step_by_step(self):
        for width, height in RANDOM.integers(4, 3000, (300, 2)).tolist():
            assert FULL_SIZE.grid((width, height)) == grid_of(width, height, 448, 9)

    @pytest.mark.parametrize("size", [(640, 480), (1000, 300), (31, 29), (1920, 1080), (2, 150)])
    def test_views_have_about_the_area_and_whole_patches(self, size):
        views = FULL_SIZE.views(image(*size))
        assert len(views) == FULL_SIZE.n_views(size)
        assert all(side % 14 == 0 for view in views for side in view.size)
        assert len({view.size for view in views[1:]}) <= 1
        assert all(0.75 < view.width * view.height / 448**2 < 1.25 for view in views)

    def test_small_sides_have_one_patch_at_least(self):
        (view,) = FULL_SIZE.views(image(2, 200))
        assert view.width == 42 and view.height == 4480  # int(448 * 10), int(4480 / 100) = 44: three patches

    def test_without_slices(self):
        assert Slicing(448, 14, 9, enabled=False).n_views((4000, 4000)) == 1


class TestParts:
    @pytest.mark.parametrize("n", [1, 2, 7, 14, 28, 32, 35, 70, 71, 314])
    def test_places_in_the_table_are_at_the_same_fraction(self, n):
        places = table_places(n, 70)
        exact = torch.arange(n, dtype=torch.float64) * 70 / n
        assert len(places) == n and places[0] == 0
        assert ((places - exact).abs() <= 1).all() and (places.diff() >= 0).all()

    def test_resampler_with_several_heads(self):
        torch.manual_seed(0)
        ours = Resampler(3, 256, 8)
        for parameter in ours.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        assert ours.attn.num_heads == 2
        patches, real = torch.randn(2, 6, 8), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
        both = ours(patches, [(2, 3), (2, 2)], real)
        for row, (grid, n) in enumerate((((2, 3), 6), ((2, 2), 4))):
            values = ours.ln_kv(patches[row, :n] @ ours.kv_proj.weight.T)
            query, key, value = (
                part @ w.T + b
                for part, w, b in zip(
                    (ours.ln_q(ours.query), values + place_vectors(*grid, 256), values),
                    ours.attn.in_proj_weight.chunk(3),
                    ours.attn.in_proj_bias.chunk(3),
                    strict=True,
                )
            )
            heads = [
                torch.softmax(q @ k.T / 128**0.5, 1) @ v
                for q, k, v in zip(query.chunk(2, 1), key.chunk(2, 1), value.chunk(2, 1), strict=True)
            ]
            expected = ours.ln_post(ours.attn.out_proj(torch.cat(heads, 1))) @ ours.proj
            assert (both[row] - expected).abs().max() < 1e-5


class TestProcessor:
    def test_prompt_of_the_card(self, loaded):
        _, processor = loaded
        prompt = processor.prompt("Is it red?", 1)
        assert prompt == "<|im_start|>user\n<image>\nIs it red?<|im_end|>\n<|im_start|>assistant\n"
        view = "<unk>" * original.QUERIES
        slices = f"<slice>{view}</slice>"
        text = written(processor, prompt, [(20, 20)])
        assert f"user\n<image_id>0</image_id><image>{view}</image>{slices}\n{slices}\nIs it red?" in text
        assert written(processor, "(<image>./</image>)\nx", [(4, 4)]) == written(processor, "<image>\nx", [(4, 4)])

    def test_rows_of_slices_and_numbers_of_images(self, loaded):
        _, processor = loaded
        view = "<unk>" * original.QUERIES
        row = f"<slice>{view}</slice>" * 2
        text = written(processor, "<image>\n<image>\nx", [(32, 32), (10, 10)])
        assert text == (
            f"<image_id>0</image_id><image>{view}</image>{row}\n{row}\n<image_id>1</image_id><image>{view}</image>\nx"
        )

    def test_ids_are_those_of_the_whole_text(self, loaded):
        _, processor = loaded
        prompt = processor.prompt("What is left?", 1)
        batch = processor([prompt], [[image(32, 32)]])
        expected = original.tokenizer().encode(written(processor, prompt, [(32, 32)])).ids
        assert batch["input_ids"].tolist() == [expected]
        assert (batch["input_ids"] == processor.image_token_id).sum() == 5 * original.QUERIES

    def test_strip_holds_patches_in_reading_order(self, loaded):
        _, processor = loaded
        picture = image(6, 4)
        strip = processor.strip(picture)
        pixels = (torch.from_numpy(np.asarray(picture).copy()).float() / 255 - 0.5) / 0.5
        for number in range(6):
            row, column = divmod(number, 3)
            patch = pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].permute(2, 0, 1)
            assert torch.allclose(strip[:, :, 2 * number : 2 * number + 2], patch)

    def test_placeholder_in_a_question_is_refused(self, loaded):
        with pytest.raises(BadInput, match="<unk>"):
            loaded[1]([loaded[1].prompt("a <unk> b", 0)])


@pytest.fixture(scope="module")
def batch(loaded):
    processor = loaded[1]
    prompts = [processor.prompt("Is there a circle?", 2), processor.prompt("no?", 0), processor.prompt("left?")]
    return processor(prompts, [[image(20, 20), image(32, 32)], [], [image(13, 18)]])


class TestWholeModel:
    def reference_logits(self, batch, row):
        weights, config = original.weights(), original.config()
        llm = language_model(config, weights)
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        placeholder = original.tokenizer().token_to_id("<unk>")
        embeds = llm.get_input_embeddings()(ids).clone()
        counts = [len(self.sample_views(batch, sample)) for sample in range(3)]
        views = list(range(sum(counts)))[sum(counts[:row]) : sum(counts[: row + 1])]
        tokens = []
        for view in views:
            rows, columns = batch["tgt_sizes"][view].tolist()
            strip = batch["pixel_values"][view][..., : rows * columns * original.PATCH]
            pixels = torch.zeros(3, rows * original.PATCH, columns * original.PATCH)
            for n in range(rows * columns):
                i, j = (original.PATCH * k for k in divmod(n, columns))
                patch = strip[..., n * original.PATCH : (n + 1) * original.PATCH]
                pixels[:, i : i + original.PATCH, j : j + original.PATCH] = patch
            tokens.append(view_tokens(weights, pixels))
        if tokens:
            embeds[ids == placeholder] = torch.cat(tokens)
        return llm(inputs_embeds=embeds[None]).logits[0]

    @staticmethod
    def sample_views(batch, sample):
        n_tokens = int((batch["input_ids"][sample] == original.tokenizer().token_to_id("<unk>")).sum())
        return range(n_tokens // original.QUERIES)

    @pytest.mark.parametrize("kernel", ["sdpa", "eager"])
    def test_equals_the_slow_reference_alone_and_in_a_padded_batch(self, folder, batch, kernel):
        model, _ = llava.load(folder, device="cpu", attn_implementation=kernel)
        assert model.llm.dtype == torch.float32
        generated = model.generate(
            **batch, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        for row in range(3):
            expected = self.reference_logits(batch, row)[-1]
            assert (generated.logits[0][row] - expected).abs().max() < 2e-4

    def test_many_views_are_encoded_in_portions(self, loaded, batch):
        model, _ = loaded
        images = {name: batch[name] for name in ("pixel_values", "tgt_sizes", "n_views")}
        assert len(batch["tgt_sizes"]) > model.config.vision_batch_size
        portions = model.get_image_features(**images).last_hidden_state
        model.config.vision_batch_size, before = 100, model.config.vision_batch_size
        at_once = model.get_image_features(**images).last_hidden_state
        model.config.vision_batch_size = before
        assert (portions - at_once).abs().max() < 1e-5

    def test_beams_equal_each_sample_alone(self, loaded, batch):
        model, processor = loaded
        together = model.generate(**batch, max_new_tokens=3, num_beams=2, do_sample=False)
        ids = batch["input_ids"][2:, batch["attention_mask"][2].bool()]
        alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        alone |= {"pixel_values": batch["pixel_values"][-1:], "tgt_sizes": batch["tgt_sizes"][-1:]}
        single = model.generate(**alone, n_views=batch["n_views"][-1:], max_new_tokens=3, num_beams=2, do_sample=False)
        assert single[0, ids.shape[1] :].tolist() == together[2, batch["input_ids"].shape[1] :].tolist()

    def test_stops_and_placeholder_come_from_the_tokenizer(self, loaded):
        model, _ = loaded
        ids = original.tokenizer().get_vocab()
        assert model.generation_config.eos_token_id == [ids["<|im_end|>"], ids["<|endoftext|>"]]
        assert model.config.image_token_id == ids["<unk>"]

    def test_an_image_too_many_is_told(self, loaded, batch):
        with pytest.raises(BadInput, match="places for visual tokens"):
            loaded[0](**{**batch, "input_ids": batch["input_ids"][2:]})


def test_the_released_size_has_the_weights_of_the_released_index():
    config = {**original.config(), "hidden_size": 3584, "intermediate_size": 18944, "vocab_size": 151666}
    config |= {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "query_num": 64}
    tower = {"hidden_size": 1152, "image_size": 980, "intermediate_size": 4304, "num_attention_heads": 16}
    config["vision_config"] = {**tower, "num_hidden_layers": 27, "patch_size": 14}
    with torch.device("meta"):
        weights = MiniCPMV(MiniCPMVConfig(**config)).state_dict()
    assert sum(weight.numel() * 2 for weight in weights.values()) == 16_198_350_304  # `total_size` there, in bfloat16


class TestStrictLoading:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda w: w.pop("resampler.query"), "missing: resampler.query"),
            (lambda w: w.update({"vpm.head.probe": torch.zeros(2)}), "unexpected: vpm.head.probe"),
            (lambda w: w.update({"resampler.proj": torch.zeros(2, 2)}), r"wrong shape: resampler.proj \(2, 2\)"),
        ],
    )
    def test_weights_must_fit_one_to_one(self, tmp_path, change, words):
        weights = original.weights()
        change(weights)
        with pytest.raises(CheckpointError, match=words):
            llava.load(original.write_checkpoint(tmp_path / "m", weights), device="cpu")

    def test_other_versions_are_refused(self, tmp_path):
        folder = original.write_checkpoint(tmp_path / "m", version=2.5)
        with pytest.raises(CheckpointError, match=r"MiniCPM-V 2.5; of this family only 2.6"):
            llava.load(folder, device="cpu")

    def test_tower_without_its_last_layer(self, tmp_path):
        weights = {
            k: v for k, v in original.weights().items() if f"layers.{original.V_LAYERS - 1}." not in k or "llm" in k
        }
        folder = original.write_checkpoint(tmp_path / "m", weights, drop_vision_last_layer=True)
        model, _ = llava.load(folder, device="cpu")
        assert len(model.vpm.encoder.layers) == original.V_LAYERS - 1

    def test_every_weight_is_the_file_s(self, loaded):
        stored = original.weights()
        held = loaded[0].state_dict()
        assert set(held) == set(stored)
        assert all(torch.equal(held[name], stored[name].float()) for name in stored)
