"""From the size of an image to its views: one overview and, if it is large, a grid of slices.

Source: MiniCPM-V 2.6, official code (`image_processing_minicpmv`), "adaptive visual encoding" of arXiv:2408.01800.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Slicing:
    """How images are cut.

    Args:
        scale_resolution: side in pixels of the square whose area one view has.
        patch_size: sides of every view are multiples of this.
        max_slices: most slices beside the overview.
        enabled: False shows every image as its overview only.
    """

    scale_resolution: int
    patch_size: int
    max_slices: int
    enabled: bool = True

    def grid(self, size: Size) -> tuple[int, int] | None:
        """Return (columns, rows) of the slices of an image, or None if it is not sliced.

        As many slices as the image has areas of one view, one more or one less, arranged in the shape nearest to the
        image's (by the logarithm of the aspect ratio; the first one on ties).
        """
        width, height = size
        views = min(math.ceil(width * height / self.scale_resolution**2), self.max_slices)
        if views <= 1 or not self.enabled:
            return None
        grids = [
            (columns, n // columns)
            for n in (views - 1, views, views + 1)
            if 1 < n <= self.max_slices
            for columns in range(1, n + 1)
            if n % columns == 0
        ]
        aspect = math.log(width / height)
        return min(grids, key=lambda grid: abs(aspect - math.log(grid[0] / grid[1])), default=(1, 1))

    def n_views(self, size: Size) -> int:
        """Return the number of views of an image: the overview and its slices."""
        columns, rows = self.grid(size) or (0, 0)
        return 1 + columns * rows

    def views(self, image: Image.Image) -> list[Image.Image]:
        """Return the overview and then the slices, row by row."""
        grid = self.grid(image.size)
        overview = _resized(image, self._view_size(*image.size, enlarge=grid is None))
        if grid is None:
            return [overview]
        columns, rows = grid
        cell = _multiple(image.width, columns) / columns, _multiple(image.height, rows) / rows
        width, height = self._view_size(*cell, enlarge=True)
        whole = _resized(image, (width * columns, height * rows))
        return [overview] + [
            whole.crop((left, top, left + width, top + height))
            for top in range(0, height * rows, height)
            for left in range(0, width * columns, width)
        ]

    def _view_size(self, width: float, height: float, enlarge: bool) -> Size:
        """Return the size of a view: the area of the square, the shape kept; smaller images only on request."""
        if enlarge or width * height > self.scale_resolution**2:
            aspect = width / height
            height = int(self.scale_resolution / math.sqrt(aspect))
            width = int(height * aspect)
        return _multiple(width, self.patch_size), _multiple(height, self.patch_size)


def _multiple(length: float, unit: int) -> int:
    """Return the multiple of `unit` nearest to a length, at least one."""
    return max(round(length / unit) * unit, unit)


def _resized(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)
