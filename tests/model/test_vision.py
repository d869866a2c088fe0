"""Reading and merging in the vision tower, against plain transformers and towers run by hand."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from llava.errors import BadInput, UnsupportedModel
from llava.reduction import BeforeLLM, Encoder, Kept, SmallerImage
from tests import tiny
from tests.tiny import N_PATCHES, SIDE, TOWER, error

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=("sdpa", "eager"))
def model(request):
    return tiny.build("llava", request.param)


@dataclass(frozen=True)
class Spy(BeforeLLM):
    """Keeps the first tokens and notes what it saw."""

    name: ClassVar[str] = "spy"
    needs_cls: ClassVar[bool] = True
    seen: ClassVar[list] = []

    @property
    def tower_layers(self):
        return (0, None, -1)

    def select_image(self, image):
        self.seen.append(image)
        return Kept(torch.arange(self.asked(image.n_visual)))


def test_what_is_read_equals_what_transformers_computes(model):
    batch = tiny.inputs()
    Spy.seen.clear()
    with Spy(keep=4)(model):
        model(**batch)
    eager = tiny.build("llava", "eager")
    tower = eager.model.vision_tower
    truth = tower(batch["pixel_values"], output_attentions=True, output_hidden_states=True)
    for number, image in enumerate(Spy.seen):
        for ref, block in ((0, 0), (None, 1), (-1, 2)):
            layer = image.layer(ref)
            assert layer.number == block
            attention = truth.attentions[block][number, :, 0, 1:]  # (H, N)
            assert error(layer.cls_attention()[0], attention) < TOLERANCE
            normed = tower.encoder.layers[block].layer_norm1(truth.hidden_states[block][number])
            assert error(layer.keys()[0], tower.encoder.layers[block].self_attn.k_proj(normed)) < TOLERANCE
            assert error(layer.queries()[0], tower.encoder.layers[block].self_attn.q_proj(normed)) < TOLERANCE
            assert error(layer.output[0], truth.hidden_states[block + 1][number]) < TOLERANCE
        assert error(image.tiles.tower[0], truth.hidden_states[-2][number]) < TOLERANCE
        projected = eager.model.multi_modal_projector(truth.hidden_states[-2][number, 1:])
        assert error(image.features, projected) < TOLERANCE
        assert error(image.project(image.tiles.tower[0, 1:]), projected) < TOLERANCE
        assert image.grid == (4, 4)
    assert len({image.seed for image in Spy.seen}) == len(Spy.seen)


class Largest(TorchDispatchMode):
    """Notes tensors that have two sides of at least `side`."""

    def __init__(self, side):
        super().__init__()
        self.side, self.found = side, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if torch.is_tensor(tensor) and sum(size >= self.side for size in tensor.shape) > 1:
                self.found.append((function, tuple(tensor.shape)))
        return output


def test_no_attention_map_at_3000_patches():
    config = {**TOWER, "image_size": 330, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 16}
    model_class, whole = tiny.llava()
    whole = transformers.LlavaConfig(
        vision_config=config, text_config=whole.text_config, image_token_id=tiny.IMAGE, vision_feature_layer=-2
    )
    large = model_class._from_config(whole, attn_implementation="sdpa").eval()
    n_patches = 55 * 55
    ids = torch.tensor([[5] + [tiny.IMAGE] * n_patches + [6]])
    with Spy(keep=16)(large) as pruning, Largest(3000) as largest:
        large(input_ids=ids, pixel_values=torch.randn(1, 3, 330, 330))
    assert largest.found == []
    assert pruning.last.kept == [[16]]


@dataclass(frozen=True)
class Pairs(Encoder):
    """Averages neighbours in block 1; adds a bias to the keys of later blocks."""

    name: ClassVar[str] = "pairs"
    keep: int = 8

    def encoder_layers(self, tower):
        assert tower.side == (4, 4)
        assert tower.tiles_per_image == 1
        return (1,)

    def begin(self, tower):
        return {"merged": False, "tiles": tower.n_tiles}

    def merge(self, memory, layer, hidden):
        assert len(hidden) == memory["tiles"]
        memory["merged"] = True
        return pairwise(hidden)

    def key_bias(self, memory):
        return torch.arange(9.0).expand(memory["tiles"], -1) / 4 if memory["merged"] else None


@dataclass(frozen=True)
class PairsAfter(Pairs):
    name: ClassVar[str] = "pairs_after"
    place: ClassVar[str] = "block"


def pairwise(hidden):
    """(T, 1 + 2 n, C) -> (T, 1 + n, C), the first token left alone."""
    return torch.cat([hidden[:, :1], hidden[:, 1:].unflatten(1, (-1, 2)).mean(2)], dim=1)


def by_hand(model, pixels, after):
    """Features of the tower with neighbours averaged in block 1, written out; block 2 is not needed."""
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    first, second, _ = tower.encoder.layers
    hidden = first(hidden, None)
    if after:
        hidden = pairwise(second(hidden, None))
    else:
        hidden = pairwise(hidden + second.self_attn(second.layer_norm1(hidden))[0])
        hidden = hidden + second.mlp(second.layer_norm2(hidden))
    return model.model.multi_modal_projector(hidden[:, 1:])


@pytest.mark.parametrize("cls", [Pairs, PairsAfter])
@pytest.mark.parametrize("alone", ["", "image", "tile"])
def test_merging_in_a_block(model, cls, alone):
    batch, seen = tiny.inputs(), []

    class Method(cls):
        def select_image(self, image):
            seen.append(image.features)
            return super().select_image(image)

    Method.alone = alone
    with Method()(model) as pruning:
        model(**batch)
    expected = by_hand(model, batch["pixel_values"], after=cls is PairsAfter)
    assert error(torch.stack(seen), expected) < TOLERANCE
    assert pruning.last.final == [8, 24, 0]
    assert [len(offsets) for images in pruning.last.indices for offsets in images] == [0] * 4  # they stand nowhere


def test_a_bias_on_the_keys_is_softmax_of_logits_plus_bias(model):
    """Merging in block 0 with a bias: block 1 attends with it."""

    @dataclass(frozen=True)
    class Biased(Pairs):
        name: ClassVar[str] = "biased"

        def encoder_layers(self, tower):
            return (0,)

    seen = []

    class Noting(Biased):
        def select_image(self, image):
            seen.append(image.features)
            return super().select_image(image)

    pixels = tiny.inputs(tiny.ONE)["pixel_values"]
    with Noting()(model):
        model(**tiny.inputs(tiny.ONE))
    tower = model.model.vision_tower
    first, second, _ = tower.encoder.layers
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    hidden = pairwise(hidden + first.self_attn(first.layer_norm1(hidden))[0])
    hidden = hidden + first.mlp(first.layer_norm2(hidden))
    attention, normed = second.self_attn, second.layer_norm1(hidden)
    query, key, value = (
        layer(normed).unflatten(2, (4, 8)).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    logits = query @ key.transpose(2, 3) * 8**-0.5 + torch.arange(9.0) / 4
    hidden = hidden + attention.out_proj((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))
    hidden = hidden + second.mlp(second.layer_norm2(hidden))
    assert error(seen[0], model.model.multi_modal_projector(hidden[0, 1:])) < TOLERANCE


def test_smaller_image_is_the_towers_own_interpolation(model):
    batch = tiny.inputs(tiny.ONE)
    with SmallerImage(keep=8)(model) as pruning:
        pruned = model(**batch).logits
    small = torch.nn.functional.interpolate(batch["pixel_values"], (SIDE // 2, SIDE), mode="bicubic", antialias=True)
    hidden = model.model.vision_tower(small, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-2]
    features = model.model.multi_modal_projector(hidden[0, 1:])
    ids = batch["input_ids"]
    places = (ids[0] == tiny.IMAGE).cumsum(0)
    ids = ids[:, (ids[0] != tiny.IMAGE) | (places <= 8)]
    assert error(pruned, model(inputs_embeds=tiny.embedded(model, ids, features)).logits) < TOLERANCE
    assert pruning.last.final == [8]


def siglip():
    config = {key: value for key, value in TOWER.items() if key != "projection_dim"}
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config={**config, "model_type": "siglip_vision_model", "vision_use_head": False},
            text_config={"model_type": "llama", **tiny.TEXT},
            image_token_id=tiny.IMAGE,
            vision_feature_layer=-2,
            vision_feature_select_strategy="full",
        )
    ).eval()


class TestRefusals:
    def test_tower_without_class_token(self):
        with pytest.raises(
            UnsupportedModel, match=r"'spy'.*\[CLS\].*SiglipVisionModel.*Methods that need none:.*divprune"
        ):
            Spy()(siglip())

    def test_class_token_that_reaches_the_language_model(self):
        model = tiny.build("llava")
        model.config.vision_feature_select_strategy = "full"
        with pytest.raises(UnsupportedModel, match="hands it to the language model"):
            Spy()(model)

    def test_merging_works_without_class_token(self):
        model, seen = siglip(), []

        @dataclass(frozen=True)
        class Half(Encoder):
            name: ClassVar[str] = "half"
            keep: int = 8

            def encoder_layers(self, tower):
                return (1,)

            def merge(self, memory, layer, hidden):
                seen.append(layer.has_cls)
                return hidden.unflatten(1, (-1, 2)).mean(2)

        with Half()(model) as pruning:
            model(**tiny.inputs(tiny.ONE))
        assert pruning.last.final == [N_PATCHES // 2]
        assert seen == [False]

    def test_block_outside_the_tower(self, model):
        @dataclass(frozen=True)
        class Deep(Spy):
            @property
            def tower_layers(self):
                return (7,)

        with Deep()(model), pytest.raises(UnsupportedModel, match="block 7 of the vision tower, which has 3"):
            model(**tiny.inputs())

    def test_images_encoded_ahead_hide_the_tower(self, model):
        batch = tiny.inputs()
        output = model.model.get_image_features(batch.pop("pixel_values"), return_dict=True)
        with Spy(keep=4)(model), pytest.raises(BadInput, match="Give pixel_values= instead"):
            model(**batch, mm_encoder_outputs={"image": output})

    def test_weights_per_token_need_another_kernel(self):
        model = tiny.build("llava")
        for block in model.model.vision_tower.encoder.layers:
            block.self_attn.config._attn_implementation_internal = "flash_attention_2"

        @dataclass(frozen=True)
        class Always(Pairs):
            def key_bias(self, memory):
                return torch.zeros(memory["tiles"], 17)

        with Always()(model), pytest.raises(UnsupportedModel, match="flash_attention_2.*attn_implementation='sdpa'"):
            model(**tiny.inputs())
