"""SparseVLM against recorded events of the official code, the card's cases, budgets, and slow plain Python."""

import json
import math

import numpy
import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction import SparseVLM
from llava.reduction.budgets import mean_over_layers
from llava.reduction.clustering import cluster_means, density_peaks
from llava.reduction.sparsevlm import LISTS, merge, text_raters
from tests.conftest import SHARED
from tests.reduction.problems import problems, rows_state

RECORDED = SHARED / "golden" / "sparsevlm.json"
CASES = json.loads(RECORDED.read_text()) if RECORDED.is_file() else []
CUT = [case for case in CASES if case["hyper"]["mode"] != "v1.0"]
RANKED = [case for case in CASES if case["hyper"]["mode"] == "v1.0"]
ALL = lambda n: torch.ones(1, n, dtype=torch.bool)  # noqa: E731


@pytest.fixture(scope="module")
def arrays(golden):
    return numpy.load(golden / "sparsevlm.npz")


def recorded(arrays, case, *names):
    return [torch.from_numpy(arrays[f"{case['name']}/{name}"]) for name in names]


def rotary(positions, size, base):
    """(1, N, d) cosines and sines."""
    angles = positions[:, None] * base ** (-torch.arange(0, size, 2).double() / size)
    angles = torch.cat([angles, angles], dim=-1).float()[None]
    return angles.cos(), angles.sin()


def delivered(selection, y, start, n_visual):
    """The sequence after the event: (N2, d)."""
    visual = y[start : start + n_visual][selection.order[0]]
    if selection.values is not None:
        visual = torch.where(selection.mixed[0][:, None], selection.values[0], visual)
    return torch.cat([y[:start], visual, y[start + n_visual :]])


@pytest.mark.parametrize("case", CUT, ids=lambda case: case["name"])
def test_recorded_events(case, arrays):
    hyper = case["hyper"]
    names = ("e_vis", "e_txt", "raters", "attn_text_rows", "y", "scores", "keep_mask", "out", "n_visual_after")
    e_vis, e_txt, raters, attention, y, scores, keep, out, n_after = recorded(arrays, case, *names)
    n_visual, n_text, start = hyper["n_visual"], hyper["n_text_after"], hyper["visual_start"]
    rating = text_raters(e_vis[None], e_txt[None], ALL(n_visual), ALL(n_text))
    assert rating[0].nonzero().squeeze(1).tolist() == raters.tolist()

    method = SparseVLM(keep=hyper["budget"], mode=hyper["mode"].lower())
    assert LISTS[method.mode][method.keep][hyper["event"]] == hyper["list_value"]
    layer = method.layers[hyper["event"]]
    assert layer == hyper["layer"] + 1
    groups, _ = problems([(start, n_visual, n_text)], layer=layer, n_prompt=[576])
    state = rows_state(groups, attention[None], y[None], prepared=rating)
    if method.mode == "v2.0":
        state.rotary = rotary(torch.arange(len(y)).double(), hyper["head_dim"], hyper["rope_base"])
        assert torch.allclose(method._corrected_scores(state, rating)[0], scores, rtol=1e-4, atol=1e-6)
    selection = method.select(state)
    stay = selection.order[0] if selection.mixed is None else selection.order[0][~selection.mixed[0]]
    assert stay.tolist() == keep.nonzero().squeeze(1).tolist()
    assert selection.kept.sum() == int(n_after) == method.plan(groups)[0]
    assert torch.allclose(delivered(selection, y, start, n_visual), out, atol=1e-4)
    renumbered = torch.arange(len(out)).tolist()
    _, positions = recorded(arrays, case, "out", "positions")
    expected = renumbered if method.position_policy != "original" else None
    kept = [*range(start), *(start + stay).tolist(), *range(start + n_visual, len(y))]
    assert positions.tolist() == (expected or kept)


@pytest.mark.parametrize("case", RANKED, ids=lambda case: case["name"])
def test_recorded_ranks(case, arrays):
    hyper = case["hyper"]
    attention, raters, n_keep, prune, keep, scores = recorded(
        arrays, case, "attn_text_rows", "raters", "n_keep", "prune", "keep_mask", "scores"
    )
    n_visual, n_text = hyper["n_visual"], hyper["n_text_after"]
    method = SparseVLM(keep=hyper["budget"], mode="v1.0")
    groups, _ = problems([(hyper["visual_start"], n_visual, n_text)], layer=3)
    rating = torch.zeros(1, n_text, dtype=torch.bool)
    rating[0, raters] = True
    y = torch.randn(1, sum((hyper["visual_start"], n_visual, n_text)), 8)
    selection = method.select(rows_state(groups, attention[None], y, prepared=rating))
    stay = selection.order[0][~selection.mixed[0]]
    assert bool(prune) and len(stay) == int(n_keep)
    assert stay.tolist() == keep.nonzero().squeeze(1).tolist()
    assert torch.allclose(attention.mean(0)[raters].mean(0), scores, rtol=1e-4)


class TestByHand:
    def test_raters(self):
        visual, text = torch.tensor([[[1.0, 0], [0, 1]]]), torch.tensor([[[2.0, 0], [0, 1], [-1, -1]]])
        assert text_raters(visual, text, ALL(2), ALL(3)).tolist() == [[True, True, False]]

    def test_a_single_text_token_rates_alone(self):
        assert text_raters(torch.randn(1, 4, 3), torch.randn(1, 1, 3), ALL(4), ALL(1)).tolist() == [[True]]

    @pytest.mark.parametrize("variant, place", [("official", 4), ("clean", 4)])
    def test_an_event(self, variant, place):
        scores = torch.tensor([0.09, 0.01, 0.20, 0.05, 0.03, 0.12, 0.02, 0.15, 0.04, 0.06])
        groups, _ = problems([(1, 10, 2)], layer=3)
        method = SparseVLM(token_lists=(4, 3, 2), variant=variant)
        y = torch.arange(-1, 12).float()[None, :, None].expand(1, 13, 2)
        rows = scores.expand(1, 1, 2, 10)
        selection = method.select(rows_state(groups, rows, y, prepared=ALL(2)))
        assert selection.order[0, :4].tolist() == [0, 2, 5, 7]
        mean = 6 / (1 + 5e-7) if variant == "official" else 6.0
        assert selection.mixed.tolist() == [[False] * place + [True]]
        assert torch.allclose(selection.values[0, place], torch.tensor(mean))
        assert method.plan(groups) == [5]
        # clean: the mixture stands where its centre stood, token 9, which comes last here; official: always last
        assert selection.order[0, 4] == 9

    def test_clusters(self):
        points = "0 0 .1 0 0 .2 5 5 5.1 5 5 5.3 5.2 5.2 .15 .1 .3 .3 5.4 5 4.8 4.9"
        tokens = torch.tensor([float(number) for number in points.split()]).view(-1, 2)
        _, means = merge(tokens, 3, 1e-6)
        assert torch.allclose(means, torch.tensor([[0.11, 0.12], [5.02, 5.08], [5.4, 5.0]]), atol=1e-4)

    @pytest.mark.parametrize(
        "keep, mode, counts",
        [
            (192, "v1.5", [309, 204, 113]),
            (128, "v1.5", [312, 117, 39]),
            (96, "v1.5", [249, 55, 27]),
            (64, "v1.5", [82, 32, 18]),
            (192, "v2.0", [300, 200, 118]),
        ],
    )
    def test_counts_and_means_of_the_card(self, keep, mode, counts):
        method = SparseVLM(keep=keep, mode=mode)
        assert method.counts(576) == counts
        mean = {192: 206.5, 128: 145.4, 96: 114.1, 64: 82.3}[keep] if mode == "v1.5" else 206.8
        assert abs(mean_over_layers(576, method.layers, counts, 32) - mean) < 0.06

    def test_an_event_that_removes_nothing(self):
        groups, _ = problems([(1, 5, 2)], layer=3)
        official, clean = (SparseVLM(token_lists=(9, 9, 9), variant=variant) for variant in ("official", "clean"))
        assert clean.plan(groups) == [5]  # left out
        assert official.plan(groups) is None
        y = torch.randn(1, 8, 4)
        rows = torch.tensor([0.3, 0.1, 0.2, 0.5, 0.4]).expand(1, 1, 2, 5)
        selection = official.select(rows_state(groups, rows, y, prepared=ALL(2)))
        assert selection.order.tolist() == [[0, 2, 3, 4, 1]]
        assert torch.allclose(selection.values[0, 4], y[0, 2] / (1 + 1e-6))


def slow_clusters(tokens, n_clusters):
    """Density peaks with loops, from the card's equations: centres in order, cluster of every token."""
    n, size = tokens.shape
    far = [[math.dist(a, b) / math.sqrt(size) for b in tokens.tolist()] for a in tokens.tolist()]
    density = [math.exp(-sum(d * d for d in sorted(row)[:n_clusters]) / n_clusters) for row in far]
    most = max(map(max, far))
    denser = [[(density[j], -j) > (density[i], -i) for j in range(n)] for i in range(n)]
    lonely = [min([far[i][j] for j in range(n) if denser[i][j]] + [most]) for i in range(n)]
    centres = sorted(range(n), key=lambda i: (-density[i] * lonely[i], i))[:n_clusters]
    near = [min(range(n_clusters), key=lambda c: (far[centres[c]][i], c)) for i in range(n)]
    for number, centre in enumerate(centres):
        near[centre] = number
    return centres, near


@pytest.mark.parametrize("n, n_clusters", [(7, 1), (24, 3), (40, 5)])
def test_slow_clusters(n, n_clusters):
    torch.manual_seed(n)
    tokens = torch.randn(n, 6, dtype=torch.float64).float()
    centres, cluster = density_peaks(tokens, n_clusters)
    expected = slow_clusters(tokens.double(), n_clusters)
    assert (centres.tolist(), cluster.tolist()) == expected
    means = cluster_means(tokens, cluster, n_clusters)
    for number in range(n_clusters):
        own = [token for token, mine in zip(tokens, expected[1], strict=True) if mine == number]
        assert torch.allclose(means[number], torch.stack(own).mean(0), atol=1e-6)


def test_ragged_batch_equals_one_by_one():
    torch.manual_seed(1)
    spans = [(2, 30, 4), (0, 12, 2), (3, 21, 6)]
    groups, _ = problems(spans, layer=3)
    method = SparseVLM(token_lists=(10, 5, 3))
    n, longest, most_text = len(spans), max(map(sum, spans)), 6
    y, rows = torch.randn(n, longest, 8), torch.rand(n, 2, most_text, 30)
    raters = groups.text_valid & (torch.arange(most_text) % 2 == 0)
    together = method.select(rows_state(groups, rows, y, prepared=raters))
    for row, (_, visual, text) in enumerate(spans):
        alone, _ = problems([spans[row]], layer=3)
        own = y[row : row + 1, -sum(spans[row]) :]
        state = rows_state(alone, rows[row : row + 1, :, :text, :visual], own, prepared=raters[row : row + 1, :text])
        single = method.select(state)
        width = single.order.shape[1]
        assert torch.equal(together.order[row, :width], single.order[0])
        assert torch.equal(together.mixed[row, :width], single.mixed[0])
        merged = single.mixed[0]
        assert torch.allclose(together.values[row, :width][merged], single.values[0][merged], atol=1e-6)


class TestBudgets:
    @pytest.mark.parametrize("keep", [192, 64, 111, 0.25, 576])
    @pytest.mark.parametrize("mode", ["v1.5", "v2.0"])
    def test_mean(self, keep, mode):
        method = SparseVLM(keep=keep, mode=mode, budget="mean").fitted(32)
        wanted = keep * 576 if isinstance(keep, float) else keep
        assert abs(mean_over_layers(576, method.layers, method.counts(576), 32) - wanted) <= 16 / 64 + 1e-9

    @pytest.mark.parametrize("keep", [64, 113, 200])
    def test_exact(self, keep):
        assert SparseVLM(keep=keep, budget="exact").n_kept(576) == keep

    def test_mistakes(self):
        with pytest.raises(ConfigurationError, match="lets the content decide"):
            SparseVLM(mode="v1.0", keep=100)
        with pytest.raises(ConfigurationError, match="one count per event"):
            SparseVLM(token_lists=(1, 2))
        with pytest.raises(ConfigurationError, match="needs token_lists"):
            SparseVLM(keep=None)

    def test_no_text_after_the_image(self):
        groups, _ = problems([(3, 4, 0)])
        with pytest.raises(ConfigurationError, match="put the question after the image"):
            SparseVLM().prepare(rows_state(groups, torch.rand(1, 1, 1, 4)))
