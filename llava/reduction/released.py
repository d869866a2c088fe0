"""DART's budget rules as released: from a ratio and a token budget to the tokens claimed by each pivot.

Source: the official code for LLaVA-1.5, LLaVA-NeXT and Qwen2-VL. Each family reads other arguments, and none keeps
exactly the number it is given: the visual pivots come on top, and every pivot claims the same whole number of tokens.
"""

from dataclasses import dataclass

from llava.errors import ConfigurationError

RELEASED, RELEASED_NEXT, EXACT = "released", "released_next", "exact"
BUDGETS = (RELEASED, RELEASED_NEXT, EXACT)

LLAVA, LLAVA_NEXT, QWEN2_VL = "llava", "llava_next", "qwen2_vl"
FAMILIES = (LLAVA, LLAVA_NEXT, QWEN2_VL)
NEXT_BUDGET = 320  # the released NeXT scripts never set their budget, so its default counts


def quotas(
    n_visual: int, keep: int | float, pivots_visual: int, pivots_text: int, text_used: int, budget: str
) -> list[int]:
    """Tokens each pivot claims, in the order of the pivots.

    Args:
        n_visual: competing visual tokens L.
        keep: budget B (count) or 1 - reduction ratio (fraction).
        pivots_visual, pivots_text: nominal numbers of pivots; the quota is computed from their sum P.
        text_used: text pivots there are, at most `pivots_text`; a short prompt has fewer than asked.
        budget: "released": floor(B / P) or floor(L (1 - ratio) / P), and everything if nothing is to be removed;
            "released_next": floor(min(B, L - pivots_visual) / P); "exact": what is left of `keep` after the visual
            pivots, spread evenly, the first pivots taking the rest.

    Returns:
        pivots_visual + text_used quotas. The last ones may exceed what is left; the claim stops there.
    """
    nominal = pivots_visual + pivots_text
    used = pivots_visual + text_used
    if budget == EXACT:
        total = int(n_visual * keep) if isinstance(keep, float) else keep
        share, rest = divmod(max(min(total, n_visual) - pivots_visual, 0), used)
        return [share + (position < rest) for position in range(used)]
    if budget == RELEASED and keep >= (1 if isinstance(keep, float) else n_visual):
        quota = n_visual  # nothing is to be removed, however few pivots there are
    elif isinstance(keep, float):
        quota = int(n_visual * keep / nominal)
    elif budget == RELEASED_NEXT:
        quota = max(min(keep, n_visual - pivots_visual), 0) // nominal
    else:
        quota = keep // nominal
    return [quota] * used


def count(n_visual: int, pivots_visual: int, quotas: list[int]) -> int:
    """Visual tokens that survive: the visual pivots and what all pivots claim, at most all there are."""
    return min(n_visual, pivots_visual + sum(quotas))


@dataclass(frozen=True)
class ReleasedBudget:
    """What a family's released rule makes of the two released arguments: `keep`, the `budget` rule, one sentence."""

    keep: int | float
    budget: str
    sentence: str


def released_budget(
    family: str, reduction_ratio: float | None = None, max_num_tokens: int | None = None
) -> ReleasedBudget:
    """Apply the released rule of a family.

    Args:
        family: "llava" (the integer wins), "llava_next" (both are ignored) or "qwen2_vl" (only the ratio counts).
        reduction_ratio: fraction of visual tokens to remove, in [0, 1).
        max_num_tokens: budget of visual tokens, at least 1.

    Raises:
        ConfigurationError: unknown family, value out of range, or the argument that counts is absent; all at once.
    """
    problems = []
    if family not in FAMILIES:
        problems.append(f"No released rule for family {family!r}. Known: {', '.join(FAMILIES)}.")
    if reduction_ratio is not None and not (_is_number(reduction_ratio) and 0 <= reduction_ratio < 1):
        problems.append(
            f"reduction_ratio={reduction_ratio!r} is outside [0, 1): give the fraction to remove, e.g. 0.778."
        )
    if max_num_tokens is not None and not (_is_whole(max_num_tokens) and max_num_tokens >= 1):
        problems.append(f"max_num_tokens={max_num_tokens!r} is not a budget: give a count of at least 1, e.g. 128.")
    if family == LLAVA and reduction_ratio is None and max_num_tokens is None:
        problems.append("Give max_num_tokens (e.g. 128) or reduction_ratio (e.g. 0.778).")
    if family == QWEN2_VL and reduction_ratio is None:
        problems.append("Give reduction_ratio (e.g. 0.778): the released Qwen2-VL rule ignores max_num_tokens.")
    if problems:
        raise ConfigurationError(*problems)
    removed = reduction_ratio or 0.0
    ratio = f"reduction ratio {reduction_ratio}"
    if family == LLAVA_NEXT:
        given = [ratio] * (reduction_ratio is not None) + [f"budget {max_num_tokens}"] * (max_num_tokens is not None)
        ignored = f"; {' and '.join(given)} ignored" if given else ""
        return ReleasedBudget(NEXT_BUDGET, RELEASED_NEXT, f"LLaVA-NeXT rule: {NEXT_BUDGET} tokens count{ignored}.")
    if family == LLAVA and max_num_tokens is not None:
        ignored = f"; {ratio} ignored" if reduction_ratio is not None else ""
        return ReleasedBudget(max_num_tokens, RELEASED, f"LLaVA-1.5 rule: budget {max_num_tokens} counts{ignored}.")
    label = "LLaVA-1.5" if family == LLAVA else "Qwen2-VL"
    ignored = f"; budget {max_num_tokens} ignored" if max_num_tokens is not None else ""
    return ReleasedBudget(1.0 - removed, RELEASED, f"{label} rule: {ratio} counts{ignored}.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
