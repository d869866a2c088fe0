"""The random control: counts, uniformity, seeds."""

import pytest
import torch

from llava.reduction import DART, Groups, LayerState, Random
from llava.reduction.random import random_select


def groups_of(*sizes):
    longest = max(sizes)
    image = torch.full((len(sizes), longest + 5), -1)
    for row, size in enumerate(sizes):
        image[row, longest - size : longest] = 0
    real = torch.ones_like(image, dtype=torch.bool)
    return Groups.build(image, real, [(row, 0) for row in range(len(sizes))], sizes, [5] * len(sizes), [1] * len(sizes))


def test_contract_of_the_draw():
    drawn = random_select(6, 3, 2, torch.Generator().manual_seed(0))
    assert drawn.tolist() == [4, 5, 7]  # torch's randperm(6)[:3] for this seed is 2, 5, 3
    assert random_select(6, 9, 0, torch.Generator()).tolist() == list(range(6))
    assert random_select(6, 0, 0, torch.Generator()).tolist() == []


def test_every_token_is_drawn_equally_often():
    n_visual, n_keep, n_draws = 12, 5, 10_000
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(n_visual)
    for _ in range(n_draws):
        counts[random_select(n_visual, n_keep, 0, generator)] += 1
    share = n_keep / n_visual
    spread = (share * (1 - share) / n_draws) ** 0.5
    assert ((counts / n_draws - share).abs() < 4 * spread).all()


class TestCounts:
    @pytest.mark.parametrize("keep", [192, 128, 64, 0.222, 1 / 9, 1.0])
    def test_dart_rule_keeps_what_dart_keeps(self, keep):
        assert Random(keep=keep).n_kept(576) == DART(keep=keep).n_kept(576)

    @pytest.mark.parametrize("ratio, n_int, n_round", [(0.667, 191, 192), (0.778, 127, 128), (0.889, 63, 64)])
    def test_int_and_round_rules(self, ratio, n_int, n_round):
        assert Random(keep=1 - ratio, count="int").n_kept(576) == n_int
        assert Random(keep=1 - ratio, count="round").n_kept(576) == n_round

    def test_a_count_is_taken_as_it_is(self):
        assert Random(keep=128, count="int").n_kept(576) == Random(keep=128, count="round").n_kept(576) == 128
        assert Random(keep=128, count="int").n_kept(100) == 100

    def test_few_tokens(self):
        assert [Random(keep=128).n_kept(n) for n in (1, 3, 5)] == [1, 3, 5]


class TestSeeds:
    def draw(self, method, seeds, sizes=(40, 25)):
        groups = groups_of(*sizes)
        return groups.columns, method.select(LayerState(2, torch.zeros(2, 45, 1), groups, seeds=seeds))

    def test_same_seed_same_tokens_whatever_stands_beside(self):
        method = Random(keep=8)
        columns, both = self.draw(method, [3, 4])
        _, swapped = self.draw(method, [4, 3], sizes=(25, 40))
        assert both[0].nonzero().tolist() == swapped[1].nonzero().tolist()
        assert both[1].nonzero().tolist() == swapped[0].nonzero().tolist()
        assert both.sum(1).tolist() == [12, 12]

    def test_another_seed_another_draw(self):
        assert not torch.equal(self.draw(Random(keep=8), [3, 4])[1], self.draw(Random(keep=8, seed=1), [3, 4])[1])
        assert not torch.equal(self.draw(Random(keep=8), [3, 4])[1], self.draw(Random(keep=8), [5, 6])[1])
