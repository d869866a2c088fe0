"""DART's released budget rules: the counts of the official scripts, and which argument counts."""

import pytest

from llava.errors import ConfigurationError
from llava.reduction import DART, released


class TestCounts:
    @pytest.mark.parametrize("budget, kept", [(192, 196), (128, 132), (64, 68), (7, 4), (8, 12)])
    def test_llava(self, budget, kept):
        assert DART.from_released("llava", 0.5, budget).n_kept(576) == kept

    @pytest.mark.parametrize(
        "ratio, kept",
        [(0.667, 188), (0.778, 124), (0.889, 60), (2 / 3, 196), (7 / 9, 132), (8 / 9, 68)],
    )
    def test_ratio_rule(self, ratio, kept):
        assert DART.from_released("llava", ratio).n_kept(576) == kept
        assert DART.from_released("qwen2_vl", ratio, 128).n_kept(576) == kept

    @pytest.mark.parametrize("budget, kept", [(640, 644), (320, 324), (160, 164)])
    def test_llava_next_budgets(self, budget, kept):
        assert DART(keep=budget, budget="released_next").n_kept(2880) == kept

    def test_llava_next_limits_the_budget_by_what_the_image_has(self):
        assert DART.from_released("llava_next").n_kept(200) == 4 + 8 * (196 // 8)

    def test_video(self):
        assert DART(keep=1024).n_kept(2048) == DART(keep=0.5).n_kept(2048) == 1028

    @pytest.mark.parametrize("keep", [576, 577, 5000, 1.0])
    def test_a_budget_of_everything_keeps_everything(self, keep):
        assert DART(keep=keep).n_kept(576) == 576

    @pytest.mark.parametrize("n_visual", range(4, 40))
    def test_exact_keeps_exactly(self, n_visual):
        for keep in (4, 7, 16, 39):
            assert DART(keep=keep, budget="exact").n_kept(n_visual) == min(keep, n_visual)
        assert DART(keep=0.5, budget="exact").n_kept(n_visual) == max(4, n_visual // 2)

    def test_exact_spreads_the_rest_over_the_first_pivots(self):
        assert released.quotas(100, 14, 2, 3, 3, "exact") == [3, 3, 2, 2, 2]
        assert released.quotas(100, 14, 2, 3, 1, "exact") == [4, 4, 4]

    def test_mean_over_32_layers_of_the_paper_setting(self):
        for budget, mean in ((192, 219.75), (128, 159.75), (64, 99.75)):
            assert (2 * 576 + 30 * DART(keep=budget).n_kept(576)) / 32 == mean


class TestWhichArgumentCounts:
    def test_llava_lets_the_integer_win(self):
        method = DART.from_released("llava", 0.778, 128)
        assert method == DART(keep=128)
        assert method.released_rule == "LLaVA-1.5 rule: budget 128 counts; reduction ratio 0.778 ignored."

    def test_llava_with_the_ratio_alone(self):
        method = DART.from_released("llava", reduction_ratio=0.75)
        assert method.keep == 0.25
        assert method.released_rule == "LLaVA-1.5 rule: reduction ratio 0.75 counts."

    def test_llava_next_ignores_both(self):
        method = DART.from_released("llava_next", 0.778, 128)
        assert method == DART(keep=320, budget="released_next")
        assert "320 tokens count; reduction ratio 0.778 and budget 128 ignored" in method.released_rule

    def test_qwen2_vl_takes_the_ratio(self):
        method = DART.from_released("qwen2_vl", 0.75, 128)
        assert method.keep == 0.25
        assert method.released_rule == "Qwen2-VL rule: reduction ratio 0.75 counts; budget 128 ignored."

    def test_other_options_pass_through(self):
        assert DART.from_released("llava", None, 64, layer=5, pivots_text=8) == DART(keep=64, layer=5, pivots_text=8)

    @pytest.mark.parametrize(
        "arguments, messages",
        [
            (("llava", 1.0, 0), ["reduction_ratio=1.0 is outside [0, 1)", "max_num_tokens=0 is not a budget"]),
            (("llava", -0.1, "many"), ["reduction_ratio=-0.1", "max_num_tokens='many'"]),
            (("llava",), ["Give max_num_tokens"]),
            (("qwen2_vl", None, 128), ["Give reduction_ratio"]),
            (("gpt", float("nan")), ["family 'gpt'. Known: llava, llava_next, qwen2_vl", "reduction_ratio=nan"]),
        ],
    )
    def test_all_mistakes_at_once(self, arguments, messages):
        with pytest.raises(ConfigurationError) as caught:
            DART.from_released(*arguments)
        assert len(caught.value.problems) == len(messages)
        assert all(message in str(caught.value) for message in messages)
