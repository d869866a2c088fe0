"""The plain baselines: cells of a grid, their middles, their means, and the grid of a smaller picture."""

import pytest
import torch

from llava.errors import ConfigurationError
from llava.reduction import Pooling, SmallerImage, Uniform
from llava.reduction.cells import cells, shape_for
from llava.reduction.pooling import cell_means
from llava.reduction.smallimage import smaller_grid
from llava.reduction.uniform import grid_indices


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (4, 4), (3, 7), (1, 13)])
def test_cells_cover_every_token_once_and_are_as_many_as_asked(rows, columns):
    for count in range(1, rows * columns + 1, 1 if rows * columns < 30 else 23):
        cut = cells(count, rows, columns)
        covered = torch.zeros(rows, columns, dtype=torch.int)
        for top, bottom, left, right in cut:
            covered[top:bottom, left:right] += 1
        assert len(cut) == count
        assert (covered == 1).all()


@pytest.mark.parametrize(
    ("count", "shape"), [(192, (12, 16)), (128, (8, 16)), (64, (8, 8)), (576, (24, 24)), (127, None)]
)
def test_regular_partitions_of_the_presets(count, shape):
    found = shape_for(count, 24, 24)
    assert found in ((shape, shape[::-1]) if shape else (None,))


def test_uniform_grid_takes_middles():
    assert grid_indices(4, 4, 4).tolist() == [0, 2, 8, 10]
    assert grid_indices(4, 6, 6).tolist() == [7, 10, 25, 28]
    assert grid_indices(3, 1, 9).tolist() == [1, 4, 7]
    assert grid_indices(16, 4, 4).tolist() == list(range(16))


def test_pooling_averages_windows():
    tokens = torch.randn(36, 5, generator=torch.Generator().manual_seed(0))
    values, middles = cell_means(tokens, 9, 6, 6)
    expected = torch.nn.functional.avg_pool2d(tokens.T.view(1, 5, 6, 6), 2).flatten(2)[0].T
    assert torch.allclose(values, expected, atol=1e-6)
    assert middles.tolist() == [0, 2, 4, 12, 14, 16, 24, 26, 28]


def test_pooling_of_uneven_cells_is_the_mean_of_each():
    tokens = torch.randn(7 * 5, 3, generator=torch.Generator().manual_seed(1))
    values, middles = cell_means(tokens, 11, 7, 5)
    assert middles.tolist() == sorted(set(middles.tolist()))
    grid = tokens.view(7, 5, 3)
    for top, bottom, left, right in cells(11, 7, 5):
        own = [middle in range(top, bottom) and column in range(left, right) for middle, column in divided(middles, 5)]
        assert torch.allclose(values[own], grid[top:bottom, left:right].flatten(0, 1).mean(0)[None], atol=1e-6)
    whole, _ = cell_means(tokens, 1, 7, 5)
    assert torch.allclose(whole[0], tokens.mean(0), atol=1e-6)
    same, _ = cell_means(tokens, 35, 7, 5)
    assert torch.allclose(same, tokens)


def divided(numbers, columns):
    return [divmod(number, columns) for number in numbers.tolist()]


@pytest.mark.parametrize(
    ("count", "exact", "grid"),
    [(192, True, (12, 16)), (64, True, (8, 8)), (192, False, (13, 13)), (128, False, (11, 11)), (127, True, (11, 11))],
)
def test_grid_of_the_smaller_picture(count, exact, grid):
    found = smaller_grid(count, 24, 24, exact)
    assert found in (grid, grid[::-1])


@pytest.mark.parametrize("count", range(1, 100, 7))
def test_smaller_picture_never_has_more_patches_than_asked(count):
    for exact in (True, False):
        rows, columns = smaller_grid(count, 10, 10, exact)
        assert 1 <= rows * columns <= count


def test_presets_keep_what_they_say():
    for method in (Uniform, Pooling, SmallerImage):
        assert [method.preset(name).n_kept(576) for name in ("192", "128", "64")] == [192, 128, 64]
    assert SmallerImage(keep=192, shape="proportional").n_kept(576) == 169


def test_smaller_image_has_no_original_positions():
    with pytest.raises(ConfigurationError, match="no token of the large picture is left"):
        SmallerImage(positions="original")
