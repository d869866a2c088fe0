"""The methods before the language model on images without a model: counts, order, tiles, padding, presets."""

import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction import registry
from llava.reduction.fastervlm import FasterVLM
from llava.reduction.globalcom2 import GlobalCom2, cls_logits
from llava.reduction.hired import HiRED
from llava.reduction.image import TowerLayer
from llava.reduction.prumerge import PruMerge, PruMergePlus, cls_scores, merge
from llava.reduction.tiles import image_mask, quotas, shown_tokens, stitch
from llava.reduction.visionzip import VisionZip
from tests.reduction.images import image, stock_order

SELECTING = (FasterVLM, HiRED, PruMerge, PruMergePlus, VisionZip, GlobalCom2)


def values(state, kept):
    """The (K, D) embeddings that go on."""
    if kept.values is None:
        return state.features[kept.indices]
    return state.project(kept.values) if kept.space == "tower" else kept.values


def tokens_of(state, rows):
    """Which token of the tiles each delivered row is; -1 for a newline."""
    flat = torch.cat([state.tiles.features.flatten(0, 1), state.tiles.newline[None]])
    distance = torch.cdist(rows, flat)
    assert (distance.min(1).values < 1e-3).all()
    found = distance.argmin(1)
    return torch.where(found == len(flat) - 1, -1, found).tolist()


class TestOneTile:
    @pytest.mark.parametrize("method", [FasterVLM, HiRED])
    def test_selects_the_most_attended(self, method):
        state = image()
        kept = method(keep=7).select_image(state)
        attention = state.layer(None).cls_attention()[0].sum(0)
        assert kept.indices.tolist() == sorted(attention.topk(7).indices.tolist())

    @pytest.mark.parametrize("keep", [1, 2, 3, 8, 35, 0.25])
    @pytest.mark.parametrize("method", SELECTING)
    @pytest.mark.parametrize("budget", ["official", "exact"])
    def test_keeps_as_many_as_it_announces(self, method, budget, keep):
        options = {"budget": budget} if "budget" in method.__dataclass_fields__ else {}
        if method is GlobalCom2:
            options["variant"] = "clean"
        chooser = method(keep=keep, **options)
        kept = chooser.select_image(image(seed=3))
        announced = chooser.n_kept(36)
        # With all but one asked, an extra token on top makes as many as there are: then nothing is changed at all.
        assert kept.count == announced or (announced == 36 and chooser.keeps_all(36))

    def test_prumerge_reads_the_last_layer_and_merges_before_the_projector(self):
        state = image()
        kept = PruMerge(keep=5, neighbours=4).select_image(state)
        layer = state.layer(-1)
        query, keys = (part.transpose(0, 1).reshape(37, 12) for part in (layer.query[0], layer.key[0]))
        scores = cls_scores(query[0], keys)
        expected = merge(state.tiles.tower[0, 1:], scores, keys[1:], scores.topk(5).indices, 4)
        assert kept.space == "tower" and torch.allclose(kept.values, expected)

    def test_prumerge_counts_outliers_by_default(self):
        state = image(seed=5)
        state.layers[3].query.mul_(2)  # a more pointed distribution
        scores = cls_scores(state.layer(-1).queries()[0, 0], state.layer(-1).keys()[0])
        high, low = scores.quantile(0.75), scores.quantile(0.25)
        outliers = int((scores > high + 1.5 * (high - low)).sum())
        assert outliers > 1
        assert PruMerge().n_kept(36) is None and PruMerge().select_image(state).count == outliers + 1
        assert PruMergePlus().select_image(state).count > outliers + 1

    def test_visionzip_delivers_cls_first(self):
        state = image()
        kept = VisionZip(keep=10, contextual=3).select_image(state)
        dominant = sorted((1 + state.layer(None).cls_attention()[0].sum(0).topk(6).indices).tolist())
        assert torch.equal(kept.values[:7], state.tiles.tower[0, [0, *dominant]])

    def test_logits_are_the_mean_over_heads(self):
        state = image()
        layer = state.layer(-1)
        slow = torch.stack([layer.query[0, h, 0] @ layer.key[0, h, 1:].T * layer.scaling for h in range(2)]).mean(0)
        assert torch.allclose(cls_logits(layer)[0], slow, atol=1e-5)


GRIDS = [((2, 2), (40, 60)), ((1, 2), (30, 30)), ((3, 1), (50, 30))]


@pytest.mark.parametrize("grid, size", GRIDS)
class TestTiles:
    def test_fastervlm_reads_the_canvas_with_padding_and_without_newlines(self, grid, size):
        state = image(grid=grid, size=size)
        kept = FasterVLM(keep=0.25).select_image(state)
        best = state.layer(None).cls_attention().mean(1).topk(9).indices
        mask = torch.zeros(len(best), 36, dtype=torch.bool).scatter(1, best, True)
        thumbnail = sorted(best[0].tolist())
        canvas = [
            36 * (1 + tile) + token
            for row in range(grid[0] * 6)
            for column in range(grid[1] * 6)
            for tile, token in [(row // 6 * grid[1] + column // 6, row % 6 * 6 + column % 6)]
            if mask[1 + tile, token]
        ]
        assert tokens_of(state, values(state, kept)) == thumbnail + canvas
        assert kept.count == 9 * (1 + grid[0] * grid[1])

    @pytest.mark.parametrize("method", [FasterVLM, HiRED])
    def test_clean_choices_stay_in_the_order_of_the_unpruned_model(self, grid, size, method):
        state = image(grid=grid, size=size)
        kept = method(keep=20, **({"variant": "clean"} if method is FasterVLM else {"budget": "exact"}))
        kept = kept.select_image(state)
        order = stock_order(grid, (6, 6), size)
        found = [order[index] for index in kept.indices.tolist()]
        assert kept.count == 20 and -1 not in found and kept.indices.tolist() == sorted(kept.indices.tolist())

    def test_hired_loses_what_falls_in_the_padding(self, grid, size):
        state = image(grid=grid, size=size)
        method = HiRED(keep=40)
        kept = method.select_image(state)
        assert kept.count <= 40 and method.n_kept(200, 1 + grid[0] * grid[1]) is None
        assert -1 not in tokens_of(state, state.features[kept.indices])

    @pytest.mark.parametrize("keep", [22, 2])
    @pytest.mark.parametrize("method", [FasterVLM, VisionZip, PruMerge, PruMergePlus])
    def test_a_count_is_shared_by_the_tiles(self, grid, size, method, keep):
        options = {"budget": "exact"} if issubclass(method, PruMerge) else {}
        assert method(keep=keep, **options).select_image(image(grid=grid, size=size)).count == keep

    def test_visionzip_packs_patches_then_cls_then_contextual(self, grid, size):
        state = image(grid=grid, size=size)
        n_crops = grid[0] * grid[1]
        kept = VisionZip(keep=0.25, contextual=2).select_image(state)
        assert kept.count == 9 * (1 + n_crops) and kept.space == "tower"
        crops = kept.values[9:]
        classes = crops[6 * n_crops : 7 * n_crops]
        assert torch.equal(classes, state.tiles.tower[1:, 0])

    def test_prumerge_goes_tile_by_tile(self, grid, size):
        state = image(grid=grid, size=size)
        kept = PruMerge(keep=0.25).select_image(state)
        assert kept.count == 10 * (1 + grid[0] * grid[1])
        whole = PruMerge(keep=0.25)
        layer = state.layer(-1)
        scores = cls_scores(layer.queries()[1, 0], layer.keys()[1])
        second = merge(state.tiles.tower[1, 1:], scores, layer.keys()[1, 1:], scores.topk(9).indices, whole.neighbours)
        assert torch.allclose(kept.values[10:20], second)

    def test_globalcom2_official_and_clean_keep_the_same_tokens(self, grid, size):
        state = image(grid=grid, size=size)
        official, clean = (GlobalCom2(variant=variant).select_image(state) for variant in ("official", "clean"))
        rows = tokens_of(state, values(state, official))
        in_order = [stock_order(grid, (6, 6), size)[index] for index in clean.indices.tolist()]
        assert sorted(t for t in rows if t >= 0) == sorted(t for t in in_order if t >= 0)
        assert rows.count(-1) == 6 * grid[0]
        assert in_order.count(-1) == stock_order(grid, (6, 6), size).count(-1)
        assert rows[:9] == cls_logits(state.layer(-1))[0].topk(9).indices.tolist()

    @pytest.mark.parametrize("variant", ["official", "clean"])
    def test_globalcom2_exact_counts_the_newlines(self, grid, size, variant):
        state = image(grid=grid, size=size)
        assert GlobalCom2(keep=40, budget="exact", variant=variant).select_image(state).count == 40
        with pytest.raises(ConfigurationError, match="newline tokens"):
            GlobalCom2(keep=2, budget="exact", variant=variant).select_image(state)

    def test_shown_tokens_agree_with_the_rectangle(self, grid, size):
        shown = shown_tokens(image(grid=grid, size=size))
        assert shown[0].all() and torch.equal(shown[1:], image_mask(size, grid, (6, 6)))


class TestTiledModelWithOneTile:
    def test_globalcom2_leaves_it_alone(self):
        state = image(newline=True)
        assert GlobalCom2().select_image(state).indices.tolist() == list(range(37))

    def test_visionzip_ends_it_with_a_newline(self):
        state = image(newline=True)
        kept = VisionZip(keep=8).select_image(state)
        assert kept.count == 9 and torch.equal(kept.values[-1], state.tiles.newline)

    @pytest.mark.parametrize("method", [FasterVLM, HiRED])
    def test_others_drop_the_newline(self, method):
        assert method(keep=8).select_image(image(newline=True)).indices.max() < 36


@pytest.mark.parametrize(
    "name, counts",
    [
        ("fastervlm", {"192": 192, "128": 128, "64": 64, "320": 64}),
        ("hired", {"192": 192, "128": 128, "64": 64, "320": 64}),
        ("visionzip", {"192": 192, "128": 128, "64": 64, "320": 64}),
        ("prumerge", {"192": 193, "128": 129, "64": 65, "320": 65}),
        ("prumerge_plus", {"192": 193, "128": 129, "64": 65, "320": 65}),
        ("tome", {"192": 192, "128": 128, "64": 64, "320": 64}),
        ("ficoco_v", {"192": 192, "128": 128, "64": 64, "320": 64}),
    ],
)
def test_presets_keep_the_cards_counts(name, counts):
    assert {preset: registry.get(name).preset(preset).n_kept(576) for preset in counts} == counts


@pytest.mark.parametrize(
    "n, fraction, expected", [(576, 1 / 3, 192), (576, 2 / 9, 128), (576, 1 / 9, 64), (576, 0.3333, 191)]
)
def test_fractions_of_the_card(n, fraction, expected):
    assert quotas(fraction, 1, n) == [expected] and HiRED(keep=fraction).n_kept(n) == expected


def test_shares_of_a_count():
    assert quotas(22, 5, 36) == [5, 5, 4, 4, 4]
    assert quotas(999, 2, 36) == [36, 36]
    assert quotas(3, 5, 36) == [1, 1, 1, 0, 0]


def test_stitching_reads_row_by_row():
    crops = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert stitch(crops, (1, 2), (2, 2)).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert stitch(crops, (2, 1), (2, 2)).tolist() == list(range(8))


@pytest.mark.parametrize(
    "method, options, message",
    [
        (HiRED, {"alpha": 1.5}, "share in"),
        (PruMerge, {"positions": "original"}, "merged tokens"),
        (VisionZip, {"positions": "original"}, "merged tokens"),
        (VisionZip, {"keep": 8, "contextual": 8}, "no room"),
        (GlobalCom2, {"positions": "original"}, "variant='clean'"),
        (PruMerge, {"keep": 0}, "not a budget"),
    ],
)
def test_wrong_options_are_explained(method, options, message):
    with pytest.raises(ConfigurationError, match=message):
        method(**options)


def test_heads_of_half_precision_stay_in_it():
    layer = TowerLayer(0, torch.randn(1, 2, 5, 4).bfloat16(), torch.randn(1, 2, 5, 4).bfloat16(), 0.5, True)
    assert layer.cls_attention().dtype == torch.bfloat16
