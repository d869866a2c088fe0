"""DART's selection against recorded choices of the official code, hand-made cases and a slow independent version."""

import json
import random

import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llava.errors import ConfigurationError
from llava.reduction import DART, Groups, LayerState
from llava.reduction.dart import CRITERIA, select_groups, select_tokens
from tests.conftest import SHARED
from tests.reduction.slow import slow_dart

RECORDED = SHARED / "golden" / "dart.json"
CASES = json.loads(RECORDED.read_text()) if RECORDED.is_file() else []


def span(n_tokens, start, length):
    visual = torch.zeros(n_tokens, dtype=torch.bool)
    visual[start : start + length] = True
    return visual


def family_of(case):
    if case["reduction_ratio"] is not None:
        return "qwen2_vl"
    return "llava_next" if case["name"].startswith("llavanext") else "llava"


@pytest.fixture(scope="module")
def arrays(golden):
    return numpy.load(golden / "dart.npz")


class TestRecordedChoices:
    def test_all_are_there(self, golden):
        assert len(CASES) >= 14

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
    def test_same_tokens(self, case, arrays):
        hidden, keys, kept = (torch.from_numpy(arrays[f"{case['name']}/{part}"]) for part in ("hidden", "keys", "kept"))
        visual = span(len(hidden), case["visual_start"], case["n_visual"])
        pivots = {name: case[name] for name in ("pivots_visual", "pivots_text")}
        method = DART.from_released(family_of(case), case["reduction_ratio"], case["max_num_tokens"], **pivots)
        assert method.n_kept(case["n_visual"]) == case["n_kept"] == len(kept)
        quota = (case["n_kept"] - case["pivots_visual"]) // sum(pivots.values())
        assert select_tokens(hidden, keys, visual, quota=quota, **pivots).tolist() == sorted(kept.tolist())

    @pytest.mark.parametrize("case", CASES[:2] + CASES[-3:], ids=lambda case: case["name"])
    def test_same_tokens_through_the_method(self, case, arrays):
        """The method's own path: a padded batch of two, one of them the recorded sample."""
        hidden, keys, kept = (torch.from_numpy(arrays[f"{case['name']}/{part}"]) for part in ("hidden", "keys", "kept"))
        pad, n = 3, len(hidden)
        shift = torch.nn.functional.pad
        batch = [torch.stack([shift(t, (0, 0, pad, 0)), shift(t.flip(0), (0, 0, 0, pad))]) for t in (hidden, keys)]
        image = torch.full((2, n + pad), -1)
        image[0, pad + case["visual_start"] : pad + case["visual_start"] + case["n_visual"]] = 0
        real = torch.ones(2, n + pad, dtype=torch.bool)
        real[0, :pad], real[1, n:] = False, False
        groups = Groups.build(image, real, [(0, 0)], [case["n_visual"]], [case["n_text_after"]], [1])
        method = DART.from_released(
            family_of(case),
            case["reduction_ratio"],
            case["max_num_tokens"],
            pivots_visual=case["pivots_visual"],
            pivots_text=case["pivots_text"],
        )
        mask = method.select(LayerState(2, None, groups, normed=batch[0], keys=batch[1]))
        assert (groups.columns[mask] - pad).tolist() == sorted(kept.tolist())
        assert method.plan(groups) == [len(kept)]


class TestByHand:
    """Cases small enough to check on paper."""

    ANGLES = (0, 0, 20, 90, 100, 180, 10, 95)
    NORMS = (9, 1, 7, 3, 2, 5, 4, 6)

    @pytest.mark.parametrize(
        "pivots, budget, expected",
        [((1, 1), 2, [1, 2, 5]), ((2, 0), 2, [1, 2, 4, 5]), ((0, 2), 2, [1, 5]), ((1, 1), 4, [1, 2, 3, 4, 5])],
    )
    def test_directions_on_a_circle(self, pivots, budget, expected):
        angles = torch.tensor(self.ANGLES, dtype=torch.float32).deg2rad()
        hidden = torch.stack([angles.cos(), angles.sin()], dim=1)
        keys = torch.tensor(self.NORMS, dtype=torch.float32)[:, None]
        kept = select_tokens(
            hidden, keys, span(8, 1, 5), quota=budget // 2, pivots_visual=pivots[0], pivots_text=pivots[1]
        )
        assert kept.tolist() == expected

    @pytest.mark.parametrize("order, expected", [("cpython_set", [2, 3, 4]), ("norm", [3, 4, 5])])
    def test_the_order_of_the_pivots_decides(self, order, expected):
        s = 0.7071
        rows = [(0, 0, 1), (0.6, 0.6, 0.529), (-0.5, 0.5, s), (1, 0, 0), (-s, -s, 0)]
        rows += [(0.5, -0.5, s), (0.2, 0.2, 0.959), (0, 0, 1), (0, 0, 1), (0, 1, 0)]
        norms = torch.tensor([10, 2, 3, 9, 1, 4, 5, 2, 3, 8.0])[:, None]
        kept = select_tokens(
            torch.tensor(rows), norms, span(10, 1, 6), quota=1, pivots_visual=1, pivots_text=1, order=order
        )
        assert kept.tolist() == expected

    def test_the_norm_is_l1_over_heads_and_channels(self):
        keys = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 0.0]])  # L1 norms 7 and 5, both of Euclidean length 5
        hidden = torch.eye(3)
        visual = torch.tensor([True, True, False])
        assert select_tokens(hidden, keys, visual, quota=0, pivots_visual=1, pivots_text=1).tolist() == [0]


def random_sample(seed, ragged=True):
    generator = torch.Generator().manual_seed(seed)
    pick = random.Random(seed)
    before, n_visual = pick.randrange(0, 40), pick.randrange(8, 70)
    n_text = pick.randrange(0 if ragged else 8, 12)
    n = before + n_visual + n_text
    hidden, keys = torch.randn(n, 24, generator=generator), torch.randn(n, 16, generator=generator)
    visual = list(range(before, before + n_visual))
    return hidden, keys, visual, list(range(before + n_visual, n))


class TestAgainstTheSlowVersion:
    @pytest.mark.parametrize("order", ["cpython_set", "norm"])
    @pytest.mark.parametrize("seed", range(40))
    def test_one_sample(self, seed, order):
        pick = random.Random(1000 + seed)
        hidden, keys, visual, text = random_sample(seed)
        pivots = pick.randrange(1, min(8, len(visual)) + 1), pick.randrange(0, 12)
        quota = pick.randrange(0, 12)
        expected = slow_dart(hidden, keys.abs().sum(1), visual, text, quota, *pivots, order)
        mask = span(len(hidden), visual[0], len(visual))
        got = select_tokens(
            hidden, keys, mask, quota=quota, pivots_visual=pivots[0], pivots_text=pivots[1], order=order
        )
        assert got.tolist() == expected

    @pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "random"])
    @pytest.mark.parametrize("seed", range(6))
    def test_ragged_batch_for_every_criterion(self, seed, criterion):
        samples = [random_sample(100 * seed + row) for row in range(4)]
        longest = max(len(hidden) for hidden, *_ in samples)
        received = [torch.rand(len(hidden), generator=torch.Generator().manual_seed(seed)) for hidden, *_ in samples]
        pads = [longest - len(hidden) for hidden, *_ in samples]

        def batched(tensors):
            width = [0, 0] * (tensors[0].ndim - 1)
            return torch.stack([torch.nn.functional.pad(t, [*width, p, 0]) for t, p in zip(tensors, pads, strict=True)])

        image = torch.full((4, longest), -1)
        real = torch.zeros(4, longest, dtype=torch.bool)
        for row, (_, _, visual, _) in enumerate(samples):
            image[row, pads[row] + visual[0] : pads[row] + visual[-1] + 1] = 0
            real[row, pads[row] :] = True
        sizes = [len(visual) for *_, visual, _ in samples], [len(text) for *_, text in samples]
        groups = Groups.build(image, real, [(row, 0) for row in range(4)], *sizes, [1] * 4)
        hidden = batched([sample[0] for sample in samples])
        keys = batched([sample[1] for sample in samples])
        state = LayerState(2, hidden, groups, normed=hidden, keys=keys, values=keys, received=batched(received))
        method = DART(keep=0.5, criterion=criterion, pivots_visual=3, pivots_text=4)
        mask = method.select(state)
        for row, (own, key, visual, text) in enumerate(samples):
            scores = received[row] if criterion.startswith("attention") else key.abs().sum(1)
            scores = -scores if criterion.endswith("min") else scores
            quota = int(len(visual) * 0.5 / 7)
            expected = slow_dart(own, scores, visual, text, quota, 3, 4)
            assert (groups.columns[row][mask[row]] - pads[row]).tolist() == expected
        assert mask.sum(1).tolist() == method.plan(groups)

    def test_half_precision_is_scored_in_half_precision_unless_asked(self):
        hidden, keys, visual, _ = random_sample(5, ragged=False)
        mask = span(len(hidden), visual[0], len(visual))
        groups = Groups.build(mask.long()[None] - 1, torch.ones_like(mask)[None], [(0, 0)], [len(visual)], [8], [1])
        low = {"normed": hidden.bfloat16()[None], "keys": keys.bfloat16()[None]}
        exact = {name: tensor.float() for name, tensor in low.items()}
        native, single = DART(keep=20), DART(keep=20, scoring="float32")
        assert torch.equal(
            single.select(LayerState(2, None, groups, **low)), native.select(LayerState(2, None, groups, **exact))
        )
        assert native.select(LayerState(2, None, groups, **low)).sum() == native.n_kept(len(visual))

    def test_equal_tokens_go_to_the_lower_index(self):
        hidden, keys = torch.ones(20, 4), torch.ones(20, 4)
        kept = select_tokens(hidden, keys, span(20, 2, 12), quota=2, pivots_visual=1, pivots_text=1)
        assert kept.tolist() == [2, 3, 4, 5, 6]


class TestCornerCases:
    def setup_method(self):
        self.hidden, self.keys, self.visual, self.text = random_sample(7, ragged=False)
        self.mask = span(len(self.hidden), self.visual[0], len(self.visual))

    def select(self, **options):
        return select_tokens(self.hidden, self.keys, self.mask, **options).tolist()

    def test_quotas_beyond_what_is_left_keep_everything(self):
        assert self.select(quota=len(self.visual)) == self.visual

    def test_quota_zero_keeps_the_visual_pivots(self):
        norms = self.keys.abs().sum(1)
        best = sorted(self.visual, key=lambda index: -norms[index])[:4]
        assert self.select(quota=0) == sorted(best)

    def test_short_text_gives_fewer_pivots_but_the_same_quota(self):
        n = self.text[2]
        kept = select_tokens(self.hidden[:n], self.keys[:n], self.mask[:n], quota=3, pivots_visual=2, pivots_text=9)
        assert len(kept) == 2 + 3 * (2 + 2)

    def test_no_image(self):
        nothing = select_tokens(self.hidden, self.keys, torch.zeros_like(self.mask), quota=3)
        assert nothing.tolist() == []

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"quota": -1}, "quota=-1"),
            ({"quota": 1, "pivots_visual": 1000}, "pivots_visual=1000 is more than the"),
            ({"quota": 1, "pivots_visual": 0, "pivots_text": 0}, "There is no pivot"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(ConfigurationError, match=message):
            self.select(**options)

    def test_several_images_have_their_own_pivots(self):
        """Each image alone, with the other one taken for text before it, gives the same tokens."""
        hidden, keys = torch.randn(60, 8), torch.randn(60, 8)
        image = torch.full((60,), -1)
        image[5:25], image[28:48] = 0, 1
        members, real = [(0, 0), (0, 1)], torch.ones(1, 60, dtype=torch.bool)
        groups = Groups.build(image[None], real, members, [20, 20], [12, 12], [1, 1])
        quotas = [[2] * 8, [2] * 8]
        mask = select_groups(
            hidden[None], keys.abs().sum(1)[None], groups, quotas=quotas, pivots_visual=4, pivots_text=4
        )
        for number in (0, 1):
            visual = (image == number).nonzero().squeeze(1).tolist()
            expected = slow_dart(hidden, keys.abs().sum(1), visual, list(range(48, 60)), 2, 4, 4)
            assert groups.columns[number][mask[number]].tolist() == expected

    def test_random_pivots_depend_on_the_seed_alone(self):
        groups = Groups.build(
            self.mask.long()[None] - 1,
            torch.ones_like(self.mask)[None],
            [(0, 0)],
            [len(self.visual)],
            [len(self.text)],
            [1],
        )
        state = LayerState(2, self.hidden[None], groups, normed=self.hidden[None], seeds=[11])
        drawn = [DART(keep=8, criterion="random", seed=seed).select(state) for seed in (0, 0, 1, 2, 3)]
        assert torch.equal(drawn[0], drawn[1])
        assert any(not torch.equal(drawn[0], other) for other in drawn[2:])


class Waits(TorchDispatchMode):
    """Counts operations that make the host wait for a device."""

    WAITING = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "masked_select", "unique", "_unique2"}

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        if name in self.WAITING:
            self.seen.append(name)
        if name == "index" and any(torch.is_tensor(i) and i.dtype == torch.bool for i in args[1] if i is not None):
            self.seen.append("index by a mask")
        return function(*args, **(kwargs or {}))


def test_selection_in_a_model_never_waits_for_the_device():
    image = torch.full((2, 120), -1)
    image[0, 10:90], image[1, 30:100] = 0, 0
    real = torch.ones_like(image, dtype=torch.bool)
    groups = Groups.build(image, real, [(0, 0), (1, 0)], [80, 70], [30, 3], [1, 1])
    hidden, keys = torch.randn(2, 120, 16), torch.randn(2, 120, 16)
    with Waits() as waits:
        Groups.build(image, real, [(0, 0), (1, 0)], [80, 70], [30, 3], [1, 1])
        DART(keep=16).select(LayerState(2, hidden, groups, normed=hidden, keys=keys))
    assert waits.seen == []


def test_selection_of_one_sample_reads_the_counts_only():
    hidden, keys = torch.randn(700, 16), torch.randn(700, 16)
    with Waits() as waits:
        select_tokens(hidden, keys, span(700, 35, 576), quota=16)
    assert len(waits.seen) <= 2, waits.seen  # tolist() of one tensor that holds two counts
