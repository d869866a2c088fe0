"""Operations from sizes, against the table printed for Eqs. 11-13 and against counts by hand."""

import json

import pytest

from llava.bench import __main__ as command
from llava.bench import costs, flops, sizes
from llava.bench.sizes import Shape, Tower

SEVEN_B = sizes.SHAPES["llava-1.5-7b"]


@pytest.mark.parametrize(
    ("tokens", "kept", "layer", "percent"),
    [
        (576, 192, 2, 36.89),
        (576, 192, 3, 39.00),
        (576, 128, 2, 26.61),
        (576, 128, 3, 29.06),
        (576, 64, 2, 16.40),
        (576, 64, 3, 19.18),
        (2880, 320, 2, 15.46),
        (2880, 320, 3, 18.28),
        (2880, 320, 1, 12.64),  # what the paper's printed 12.8 comes nearest to
    ],
)
def test_the_papers_formula(tokens, kept, layer, percent):
    (row,) = flops.rows(SEVEN_B, [tokens], [kept], [layer], text=0, bytes_each=2)
    assert round(row["paper"], 2) == percent


def test_the_cache_of_the_papers_table():
    """Printed: 1512.1 and 168.0 MB, 0.525 MB per token, as if no layer saw all tokens; with the two that do, 251.7."""
    (row,) = flops.rows(SEVEN_B, [2880], [320], [2], text=0, bytes_each=2)
    assert row["cache_bytes_visual_unpruned"] == 2880 * 524_288 and row["cache_bytes_visual"] == 480 * 524_288
    assert row["cache_bytes_visual"] / 1e6 == pytest.approx(251.7, abs=0.05)


def test_the_exact_count_by_hand():
    shape = Shape(layers=2, width=4, heads=2, kv_heads=1, ffn=6)
    (row,) = flops.rows(shape, [5], [2], [1], text=1, bytes_each=4)

    def layer(n):
        projections = 4 * 4 + 4 * 4 + 2 * (4 * 2)  # query, output; key and value have one head of two channels
        pairs = n * (n + 1) // 2  # each token sees itself and those before
        return 2 * (n * projections + n * 3 * 4 * 6 + pairs * 2 * 4)

    assert row["flops_exact_unpruned"] == 2 * layer(6) and row["flops_exact"] == layer(6) + layer(3)
    assert row["attention_share_unpruned"] == pytest.approx(100 * 2 * 21 * 8 / layer(6))
    assert row["cache_bytes"] == (6 + 3) * 2 * 2 * 4  # columns, keys and values, channels, bytes


def test_the_tower_by_hand():
    n, d, m = 10, 8, 12
    one = 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * m)
    assert costs.tower_layers(Tower(layers=3, width=d, heads=2, ffn=m), n) == 3 * one


def test_a_tiled_image_has_a_tower_run_for_every_tile():
    shape = sizes.SHAPES["llava-next-7b"]
    one = costs.tower_layers(Tower(23, 1024, 16, 4096), 577)
    assert flops.tower_flops(shape, 2880) == 5 * one
    assert flops.tower_flops(sizes.named("llava-1.5-7b", tower="clip-l"), 576) == one


def test_layer_0_is_before_the_language_model():
    assert costs.layer_lengths(9, 2, 0, 3) == [2, 2, 2] and costs.layer_lengths(9, 2, 1, 3, text=4) == [13, 6, 6]


def test_the_command(tmp_path, capsys):
    words = "flops --shape llava-1.5-7b --tokens 576,100 --keep 192,0.5 --text 0 --output"
    assert command.main([*words.split(), str(tmp_path / "flops.json")]) == 0
    assert "36.89" in capsys.readouterr().out
    found = json.loads((tmp_path / "flops.json").read_text())
    assert found["format"] == 1 and found["complete"]
    assert [(row["tokens"], row["kept"]) for row in found["rows"]] == [(576, 192), (576, 288), (100, 50)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--shape smal --keep x --layer 99 --dtype int8", "3 mistakes"),
        ("--layer 99 --text -1 --tokens ,", "3 mistakes"),
        ("--keep 2880", "not below the 2880"),
        ("--output flops.txt", "JSON"),
    ],
)
def test_bad_options(words, sentence, capsys):
    assert command.main(["flops", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
