"""Images as before-LLM methods see them, without a model: random features and tower layers, with crops or without."""

import torch

from llava.reduction.image import ImageState, Tiles, TowerLayer
from llava.reduction.tiles import unpadded

WIDTH, EMBEDDING, HEADS, HEAD_DIM = 12, 5, 2, 6
N_LAYERS = 4


def stock_order(grid, side, size):
    """What LLaVA-NeXT delivers, one token at a time: thumbnail, then rows of the un-padded canvas ended by newlines."""
    n = side[0] * side[1]
    order = list(range(n))
    if grid is None:
        return [*order, -1]
    top, bottom, left, right = unpadded(size, (grid[0] * side[0], grid[1] * side[1]))
    for row in range(top, bottom):
        for column in range(left, right):
            tile = 1 + row // side[0] * grid[1] + column // side[1]
            order.append(tile * n + row % side[0] * side[1] + column % side[1])
        order.append(-1)
    return order


def image(side=(6, 6), grid=None, size=None, seed=0, newline=None):
    """One image: without `newline` a single tile, with it (default: if there are crops) as LLaVA-NeXT packs it."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    n_tiles, n = 1 + (grid[0] * grid[1] if grid else 0), side[0] * side[1]
    weight = draw(WIDTH, EMBEDDING)
    layers = {}
    for number in range(N_LAYERS):
        query, key = (draw(n_tiles, HEADS, 1 + n, HEAD_DIM) for _ in range(2))
        layers[number] = TowerLayer(number, query, key, HEAD_DIM**-0.5, True, draw(n_tiles, 1 + n, WIDTH))
    tower = layers[N_LAYERS - 2].output

    def project(hidden):
        return (hidden @ weight).tanh()

    features = project(tower[:, 1:])
    if newline is None:
        newline = grid is not None
    if not newline:
        tiles, packed = Tiles(features, tower, side), features[0]
    else:
        source = torch.tensor(stock_order(grid, side, size))
        line_end = draw(EMBEDDING)
        packed = torch.where((source < 0)[:, None], line_end, features.flatten(0, 1)[source.clamp_min(0)])
        tiles = Tiles(features, tower, side, grid, size, line_end, source)
    return ImageState(
        features=packed, tiles=tiles, layers=layers, project=project, feature_layer=N_LAYERS - 2, n_layers=N_LAYERS
    )
