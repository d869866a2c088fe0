"""`python -m llava.bench flops`: what the shapes promise, by the paper's formula and by an exact count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.bench import costs, results, sizes
from llava.bench.options import SMALL, keep_problems, listed, output_problems
from llava.bench.sizes import PATCH, TILE, TOWERS, Shape
from llava.commandline import say, too_small
from llava.eval import identity
from llava.eval.screen import DASH, table
from llava.model.accounting import flops_exact, flops_paper

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Flops:
    """Count operations and cache of one prompt from the shapes; nothing is run."""

    shape: str = SMALL
    """small, llava-1.5-7b, llava-1.5-13b, llava-next-7b, qwen2-vl-7b."""
    tower: str | None = None
    """Vision tower, tiny or clip-l; default: that of the shape."""
    tokens: str = "576,2880"
    """Visual tokens before the cut, with commas; taken as they are."""
    keep: str = "64,320"
    """Visual tokens after the cut, counts or fractions, with commas; only those below the tokens are shown."""
    layer: str = "2"
    """Decoder layers whose input is cut, with commas; 0: before the language model."""
    text: int = 60
    """Text tokens around the image; the paper's formula is also shown without."""
    dtype: str = "float16"
    """Of the cache: float32, float16, bfloat16."""
    output: Path | None = None
    """JSON file for the result."""

    def problems(self) -> list[str]:
        """Return everything that is wrong."""
        found = sizes.problems(self.shape, None, self.tower) + too_small(self, text=0)
        tokens, wrong_tokens = listed(self.tokens, "tokens")
        keeps, wrong_keeps = listed(self.keep, "keep", (int, float))
        layers, wrong_layers = listed(self.layer, "layer")
        found += wrong_tokens + wrong_keeps + wrong_layers
        found += [f"--tokens {n}: give at least 1." for n in tokens if n < 1]
        found += keep_problems(keeps, [max(tokens)] if tokens else [])
        if self.shape in sizes.SHAPES:
            last = sizes.SHAPES[self.shape].layers - 1
            found += [f"--layer {n}: give 0 to {last} for {self.shape}." for n in layers if not 0 <= n <= last]
        if self.dtype not in BYTES:
            found.append(f"Unknown dtype {self.dtype!r}. Known: {', '.join(BYTES)}.")
        return found + output_problems(self.output)


def run(options: Flops) -> None:
    """Count, show, write."""
    shape = sizes.named(options.shape, tower=options.tower)
    found = rows(
        shape,
        listed(options.tokens, "tokens")[0],
        listed(options.keep, "keep", (int, float))[0],
        listed(options.layer, "layer")[0],
        options.text,
        BYTES[options.dtype],
    )
    say(f"{options.shape}, {options.text} text tokens, cache in {options.dtype}; shares are of the unpruned prompt")
    for line in lines(found):
        say(line)
    results.finish(
        results.content("flops", options, identity.surroundings(), {"model": options.shape}, found), options.output
    )


def rows(
    shape: Shape,
    tokens: Sequence[int],
    keeps: Sequence[int | float],
    layers: Sequence[int],
    text: int,
    bytes_each: int,
) -> list[dict[str, Any]]:
    """Return one row for each length, budget and layer that go together.

    Shares (percent): `paper` by Eqs. 11-13 over visual tokens alone, as the paper's table has it; `paper_with_text` by
    the same formula over the whole prompt; `exact` by the exact count over the whole prompt; `exact_with_vision` with
    the vision tower, which is never saved. `speedup_*` are their inverses.
    """
    found = []
    for n in tokens:
        for keep in keeps:
            kept = keep if isinstance(keep, int) else int(n * keep)
            if 0 < kept < n:
                found += [_row(shape, n, kept, layer, text, bytes_each) for layer in layers]
    return found


def _row(shape: Shape, n: int, kept: int, layer: int, text: int, bytes_each: int) -> dict[str, Any]:
    size = shape.decoder
    visual = costs.layer_lengths(n, kept, layer, size.layers)
    pruned = [length + text for length in visual]
    full, whole = [n] * size.layers, [n + text] * size.layers
    tower = tower_flops(shape, n)
    exact, unpruned = flops_exact(pruned, size), flops_exact(whole, size)
    return {
        "tokens": n,
        "kept": kept,
        "layer": layer,
        "mean_over_layers": sum(visual) / size.layers,
        "paper": 100 * flops_paper(visual, size) / flops_paper(full, size),
        "paper_with_text": 100 * flops_paper(pruned, size) / flops_paper(whole, size),
        "exact": 100 * exact / unpruned,
        "exact_with_vision": 100 * (exact + tower) / (unpruned + tower),
        "speedup_exact": unpruned / exact,
        "speedup_with_vision": (unpruned + tower) / (exact + tower),
        "flops_exact": exact,
        "flops_exact_unpruned": unpruned,
        "flops_tower": tower,
        "attention_share_unpruned": 100 * attention_share(n + text, shape),
        "cache_bytes": costs.cache_bytes(pruned, size, bytes_each),
        "cache_bytes_unpruned": costs.cache_bytes(whole, size, bytes_each),
        "cache_bytes_visual": costs.cache_bytes(visual, size, bytes_each),
        "cache_bytes_visual_unpruned": costs.cache_bytes(full, size, bytes_each),
    }


def tower_flops(shape: Shape, n: int) -> int:
    """Return the operations of the shape's vision tower for an image of n visual tokens, up to the layer it is read at.

    One patch makes one token; a LLaVA-NeXT has as many tiles as n needs.
    """
    tower = TOWERS[shape.tower]
    used = sizes.Tower(tower.layers - 1, tower.width, tower.heads, tower.ffn)  # read at the layer before the last
    if not shape.next:
        return costs.tower_layers(used, n + 1)
    tiles = 1 + sizes.tiles_across(n) ** 2
    return tiles * costs.tower_layers(used, (TILE // PATCH) ** 2 + 1)


def attention_share(n: int, shape: Shape) -> float:
    """Return the share of the attention's pairs in the exact count of one layer of n tokens."""
    size = shape.decoder
    return 2 * n * (n + 1) // 2 * 2 * size.heads * size.head / flops_exact([n], size)


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table for the screen."""
    header = ["tokens", "kept", "layer", "mean/layer", "paper %", "with text", "exact %", "exact speed-up"]
    header += ["with vision", "cache MB", "of MB", "share"]
    cells = [
        [
            str(row["tokens"]),
            str(row["kept"]),
            str(row["layer"]),
            f"{row['mean_over_layers']:.1f}",
            f"{row['paper']:.2f}",
            f"{row['paper_with_text']:.2f}",
            f"{row['exact']:.2f}",
            f"{row['speedup_exact']:.2f}x",
            f"{row['speedup_with_vision']:.2f}x",
            f"{row['cache_bytes'] / 1e6:.1f}",
            f"{row['cache_bytes_unpruned'] / 1e6:.1f}",
            f"{row['cache_bytes'] / row['cache_bytes_unpruned']:.1%}",
        ]
        for row in found
    ]
    return table(header, cells, left=0) if cells else [DASH]
