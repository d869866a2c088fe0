"""The methods inside the vision tower, driven block by block without a model: schedules, memory, order."""

import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction.ficoco_v import FiCoCoV, ScoreBuffer, compress_clean, filter_clean, mean_logits
from llava.reduction.image import ImageState, Tiles, TowerInfo, TowerLayer
from llava.reduction.tome import ToMe
from tests.reduction import recorded

CPU = torch.device("cpu")


def tower(n_layers=24, side=(24, 24), n_tiles=1, has_cls=True, tiles_per_image=1):
    return TowerInfo(
        n_layers=n_layers,
        feature_layer=n_layers - 2,
        n_tiles=n_tiles,
        tiles_per_image=tiles_per_image,
        side=side,
        has_cls=has_cls,
        device=CPU,
    )


def run(method, info, width=3, seed=0, hidden=None):
    """Call the hooks as a tower would, with random queries and keys; return the last hidden state and the memory."""
    generator = torch.Generator().manual_seed(seed)
    memory = method.begin(info)
    length = info.side[0] * info.side[1] + info.has_cls
    if hidden is None:
        hidden = torch.randn(info.n_tiles, length, width, generator=generator)
    lengths = []
    for number in method.encoder_layers(info):
        query, key = (torch.randn(info.n_tiles, 2, hidden.shape[1], 4, generator=generator) for _ in range(2))
        hidden = method.merge(memory, TowerLayer(number, query, key, 0.5, info.has_cls), hidden)
        lengths.append(hidden.shape[1])
    return hidden, memory, lengths


class TestToMe:
    @pytest.mark.parametrize("keep", [192, 128, 64, 1 / 9])
    def test_reaches_the_count_in_the_blocks_that_count(self, keep):
        hidden, _, lengths = run(ToMe(keep=keep), tower())
        assert hidden.shape[1] - 1 == ToMe(keep=keep).n_kept(576) and len(lengths) == 23

    @pytest.mark.parametrize("r, left", [(16, 208), (22, 70)])
    def test_constant_r(self, r, left):
        assert run(ToMe(r=r), tower())[0].shape[1] - 1 == left

    def test_a_falling_schedule(self):
        lengths = run(ToMe(r=4, inflect=-1.0), tower(5, (8, 8)))[2]
        assert lengths == [57, 52, 50, 50]

    def test_a_count_is_shared_by_tiles(self):
        hidden, _, _ = run(ToMe(keep=50), tower(6, (6, 6), n_tiles=5, tiles_per_image=5))
        assert hidden.shape[:2] == (5, 11)

    def test_too_few_blocks_are_refused(self):
        with pytest.raises(ConfigurationError, match="at least keep=144"):
            ToMe(keep=64).begin(tower(3))

    def test_merging_keeps_the_sum_over_patches(self):
        hidden = torch.randn(2, 65, 3, generator=torch.Generator().manual_seed(1))
        merged, memory, _ = run(ToMe(keep=0.25), tower(6, (8, 8), n_tiles=2), hidden=hidden)
        assert torch.allclose((merged * memory.sizes).sum(1), hidden.sum(1), atol=1e-4)
        assert memory.sizes.sum(1).flatten().tolist() == [65, 65]

    def test_attention_weighs_tokens_by_their_patches(self):
        _, memory, _ = run(ToMe(keep=0.25), tower(6, (8, 8)))
        assert torch.allclose(ToMe().key_bias(memory).exp(), memory.sizes[..., 0])
        assert ToMe(prop_attn=False).key_bias(memory) is None
        assert ToMe().key_bias(ToMe().begin(tower())) is None

    def test_spatial_order_sorts_by_the_mean_place(self):
        numbers = torch.arange(65.0)[None, :, None]
        merged, memory, _ = run(ToMe(keep=20), tower(6, (8, 8)), hidden=numbers)
        state = ImageState(merged[0, 1:], Tiles(merged[:, 1:]), memory=memory)
        scrambled = ToMe().select_image(state).values[:, 0]
        ordered = ToMe(order="spatial").select_image(state).values[:, 0]
        assert torch.equal(scrambled, merged[0, 1:, 0]) and not torch.equal(ordered, scrambled)
        assert torch.allclose(ordered, scrambled.sort().values)

    def test_every_token_remembers_the_patch_that_stayed(self):
        hidden = torch.randn(1, 65, 3, generator=torch.Generator().manual_seed(1))
        merged, memory, _ = run(ToMe(keep=40), tower(6, (8, 8)), hidden=hidden)
        sources = ToMe().select_image(ImageState(merged[0, 1:], Tiles(merged[:, 1:]), memory=memory)).sources
        assert len(sources.unique()) == 40 and sources.min() >= 0 and sources.max() < 64
        alone = memory.sizes[0, 1:, 0] == 1
        assert torch.allclose(merged[0, 1:][alone], hidden[0, 1:][sources[alone]])

    def test_without_a_class_token_all_may_merge(self):
        hidden, _, _ = run(ToMe(keep=16), tower(6, (8, 8), has_cls=False))
        assert hidden.shape[1] == 16


class TestFiCoCoV:
    @pytest.mark.parametrize("variant", ["official", "clean"])
    @pytest.mark.parametrize(
        "keep, removed", [(192, [35] * 10 + [34]), (128, [41] * 8 + [40] * 3), (64, [47] * 6 + [46] * 5)]
    )
    def test_reaches_the_count_in_the_upper_half(self, variant, keep, removed):
        method = FiCoCoV(keep=keep, variant=variant)
        hidden, _, lengths = run(method, tower())
        assert hidden.shape[1] - 1 == keep == method.n_kept(576)
        assert [a - b for a, b in zip([577, *lengths], lengths, strict=False)] == removed
        assert method.encoder_layers(tower()) == tuple(range(12, 23))

    @pytest.mark.parametrize("r, left", [(42, 114), (32, 224), (35, 191), (37, 169), (41, 125), (46, 70), (47, 59)])
    def test_constant_r(self, r, left):
        method = FiCoCoV(r=r)
        assert 576 - sum(method.begin(tower()).removals.values()) == left and method.n_kept(576) is None

    def test_small_towers_begin_earlier_if_they_must(self):
        assert FiCoCoV(keep=192).encoder_layers(tower(6)) == (3, 4)
        assert (
            FiCoCoV(keep=64).encoder_layers(tower(6)) == (1, 2, 3, 4)[-len(FiCoCoV(keep=64).encoder_layers(tower(6))) :]
        )
        assert run(FiCoCoV(keep=64), tower(6))[0].shape[1] == 65
        with pytest.raises(ConfigurationError, match="smaller control_encoding_layer"):
            FiCoCoV(keep=64, control_encoding_layer=3).begin(tower(6))

    def test_keeping_everything_does_nothing(self):
        assert FiCoCoV(keep=1.0).encoder_layers(tower()) == ()

    def test_fresh_buffer_per_tile_or_a_shared_one(self):
        fresh, shared = FiCoCoV(keep=128), FiCoCoV(keep=128, shared=ScoreBuffer((24, 24)))
        first = [run(method, tower(), seed=1)[0] for method in (fresh, fresh, shared)]
        assert torch.equal(first[0], first[1])
        assert shared.encoder_layers(tower())[-1] == 23, "the last block writes scores although its tokens are dropped"
        shared.shared.reset()
        again = run(shared, tower(), seed=1)[0]
        assert torch.equal(first[2], again)
        assert not torch.equal(run(shared, tower(), seed=1)[0], again), "the second image sees the first one's scores"

    def test_a_buffer_of_another_size_is_refused(self):
        with pytest.raises(ConfigurationError, match="ScoreBuffer"):
            FiCoCoV(shared=ScoreBuffer((8, 8))).begin(tower())

    def test_clean_variant_remembers_true_cells(self):
        info = tower(6, (8, 8))
        method = FiCoCoV(keep=40, variant="clean")
        hidden = torch.randn(1, 65, 3, generator=torch.Generator().manual_seed(2))
        merged, memory, _ = run(method, info, hidden=hidden, seed=3)
        generator = torch.Generator().manual_seed(3)
        tokens, cells = hidden[0], torch.arange(64)
        for number, r in method.begin(info).removals.items():
            query, key = (torch.randn(1, 2, len(tokens), 4, generator=generator) for _ in range(2))
            layer = TowerLayer(number, query, key, 0.5, True)
            logits = mean_logits(layer.queries()[0] * 0.5, layer.keys()[0], 2)
            filtered = filter_clean(logits, r, cells, (8, 8))
            tokens, cells = compress_clean(tokens, logits, filtered), cells[filtered.left[1:] - 1]
        assert torch.allclose(merged[0], tokens) and torch.equal(memory.cells[1:], cells)
        assert cells.tolist() == sorted(cells.tolist())

    @pytest.mark.parametrize("name", recorded.names("ficoco_v", kind="function-level"))
    def test_recorded_steps_through_the_method(self, name, golden):
        hyper, arrays = recorded.load("ficoco_v", name)
        method = FiCoCoV(r=hyper["r"])
        memory = method.begin(tower())
        for step, number in zip(range(hyper["steps"]), method.encoder_layers(tower()), strict=False):
            query, key = (
                arrays[f"{part}.{step}"].unflatten(-1, (hyper["heads"], -1)).transpose(0, 1)[None] for part in "qk"
            )
            out = method.merge(memory, TowerLayer(number, query, key, 1.0, True), arrays[f"x.{step}"][None])
            assert torch.allclose(out[0], arrays[f"y.{step}"], rtol=0, atol=1e-5)
