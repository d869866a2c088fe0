"""Procedural scenes with ground truth: coloured shapes, a printed sign, textured backgrounds and clutter.

A scene lives on the full square canvas of the vision tower; it may be restricted to a window of patches (training
curriculum), in which case everything is placed, and only that part is drawn, inside the window. All positions are
pixels of the full canvas.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from llava.errors import ConfigurationError

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 20),
    "yellow": (245, 225, 40),
    "green": (44, 150, 50),
    "blue": (40, 80, 210),
    "purple": (140, 60, 180),
    "white": (248, 248, 248),
    "black": (16, 16, 16),
}
COLOR_NAMES = tuple(COLORS)
LETTERS = "ACEFHJKLMNPRTUXY"
DIGITS = "0123456789"
CHARACTERS = LETTERS + DIGITS + "+"
BACKGROUNDS = ("plain", "striped", "checkered", "dotted")
SIZES, SIZE_STEPS, SMALLEST = 8, 84, 3  # classes of radii, how many a canvas would be, the first that occurs


@dataclass(frozen=True)
class Thing:
    """One coloured shape; `x`, `y` centre and `radius` of its bounding circle in pixels, `angle` in degrees."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    angle: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Sign:
    """A plate with printed characters: boxes of the plate and of each character, (left, top, right, bottom) pixels."""

    text: str
    box: tuple[float, float, float, float]
    characters: tuple[tuple[float, float, float, float], ...]
    font_size: int
    dark: bool


@dataclass(frozen=True)
class Window:
    """The part of the patch grid a scene is confined to: first row, first column, side, all in patches."""

    row: int
    column: int
    side: int


@dataclass
class Scene:
    """Ground truth of one image. `canvas` is the side of the full image in pixels, `patch` the side of a patch."""

    canvas: int
    patch: int
    window: Window
    things: list[Thing] = field(default_factory=list)
    sign: Sign | None = None
    background: str = "plain"
    seed: int = 0

    @property
    def region(self) -> tuple[int, int, int, int]:
        """Pixels (left, top, right, bottom) of the window."""
        left, top = self.window.column * self.patch, self.window.row * self.patch
        side = self.window.side * self.patch
        return left, top, left + side, top + side


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ConfigurationError("Pillow was built without FreeType, which draws the signs: type `pip install pillow`.")
    return font


def layout_sign(text: str, font_size: int, rng: np.random.Generator) -> Sign:
    """Lay `text` out on a plate whose top left corner is the origin."""
    font, gap = _font(font_size), int(rng.integers(2, 7))
    pad = int(rng.integers(5, 11))
    boxes: list[tuple[float, float, float, float]] = []
    x: float = pad
    top, bottom = font.getbbox("H")[1], font.getbbox("H")[3]
    for character in text:
        left, _, right, _ = font.getbbox(character)
        boxes.append((x, pad, x + right - left, pad + bottom - top))
        x += right - left + gap
    return Sign(text, (0, 0, x - gap + pad, bottom - top + 2 * pad), tuple(boxes), font_size, bool(rng.integers(2)))


def move_sign(sign: Sign, dx: float, dy: float) -> Sign:
    def shift(box):
        return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy

    return Sign(sign.text, shift(sign.box), tuple(shift(b) for b in sign.characters), sign.font_size, sign.dark)


class Placer:
    """Puts boxes inside a region without overlap; gives up on one after a number of tries."""

    def __init__(self, region: tuple[int, int, int, int], rng: np.random.Generator, gap: float = 5.0):
        self.region, self.rng, self.gap = region, rng, gap
        self.boxes: list[tuple[float, float, float, float]] = []

    def place(self, width: float, height: float, tries: int = 30) -> tuple[float, float] | None:
        """Return the top left corner of a free box of this size, or None when none was found."""
        left, top, right, bottom = self.region
        if width + 2 > right - left or height + 2 > bottom - top:
            return None
        for _ in range(tries):
            x = self.rng.uniform(left + 1, right - width - 1)
            y = self.rng.uniform(top + 1, bottom - height - 1)
            if all(
                x > b[2] + self.gap
                or x + width < b[0] - self.gap
                or y > b[3] + self.gap
                or y + height < b[1] - self.gap
                for b in self.boxes
            ):
                self.boxes.append((x, y, x + width, y + height))
                return x, y
        return None


def sample_scene(
    rng: np.random.Generator,
    *,
    canvas: int,
    patch: int,
    window: Window,
    names: list[tuple[str, str]],
    radius: tuple[float, float],
    sign_text: str | None = None,
    font_sizes: tuple[int, int] = (40, 58),
) -> Scene:
    """Place things called `names` ((colour, shape) pairs) and a sign; what finds no free place is left out."""
    scene = Scene(
        canvas, patch, window, background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))], seed=int(rng.integers(2**31))
    )
    placer = Placer(scene.region, rng)
    if sign_text is not None:
        sign = layout_sign(sign_text, int(rng.integers(*font_sizes, endpoint=True)), rng)
        corner = placer.place(sign.box[2], sign.box[3])
        if corner:
            scene.sign = move_sign(sign, *corner)
    for color, shape in names:
        r = rng.uniform(*radius)
        corner = placer.place(2 * r, 2 * r)
        if corner is None:
            r = radius[0]
            corner = placer.place(2 * r, 2 * r)
        if corner:
            scene.things.append(Thing(shape, color, corner[0] + r, corner[1] + r, r, float(rng.uniform(-15, 15))))
    return scene


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corner points of a shape in the unit circle."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(0, -1), (0.95, 0.75), (-0.95, 0.75)]
    if shape == "cross":
        a, b = 0.32, 0.97
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    points = []
    for k in range(10):  # star
        r = 1.0 if k % 2 == 0 else 0.42
        t = math.pi * k / 5
        points.append((r * math.sin(t), -r * math.cos(t)))
    return points


def thing_mask(thing: Thing, scale: int = 3) -> Image.Image:
    """Antialiased coverage of a thing, an 8-bit image of its bounding square."""
    side = max(2, int(round(2 * thing.radius)))
    big = Image.new("L", (side * scale, side * scale))
    draw, r = ImageDraw.Draw(big), side * scale / 2
    if thing.shape in ("circle", "ring"):
        draw.ellipse((r * 0.04, r * 0.04, r * 1.96, r * 1.96), fill=255)
        if thing.shape == "ring":
            draw.ellipse((r * 0.5, r * 0.5, r * 1.5, r * 1.5), fill=0)
    else:
        cos, sin = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
        shrink = 0.92
        draw.polygon(
            [
                (r + shrink * r * (x * cos - y * sin), r + shrink * r * (x * sin + y * cos))
                for x, y in _polygon(thing.shape)
            ],
            fill=255,
        )
    return big.reduce(scale)


def _background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Textured background of the window, uint8 (side, side, 3): muted colours, pattern, smooth and fine noise."""
    side = scene.window.side * scene.patch
    base = rng.integers(70, 186, 3)
    grey = base.mean()
    base = grey + (base - grey) * 0.45  # muted, so that no background is mistaken for a coloured thing
    other = base + rng.choice([-1, 1]) * rng.uniform(24, 46)
    x = np.arange(side, dtype=np.float32)[None]
    y = x.T
    period, phase = int(rng.integers(18, 34)), int(rng.integers(0, 30))
    if scene.background == "striped":
        angle = rng.uniform(0, math.pi)
        pattern = np.floor((x * math.cos(angle) + y * math.sin(angle) + phase) / period).astype(np.int16) & 1
    elif scene.background == "checkered":
        pattern = ((x + phase) // period + (y + phase) // period).astype(np.int16) & 1
    elif scene.background == "dotted":
        u, v = (x + phase) % period - period / 2, (y + phase) % period - period / 2
        pattern = (u * u + v * v < (0.28 * period) ** 2).astype(np.int16)
    else:
        pattern = np.zeros((side, side), dtype=np.int16)
    coarse = rng.normal(0, 9, (side // 24 + 2, side // 24 + 2)).astype(np.float32)
    coarse = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR)).astype(np.int16)
    noise = coarse + rng.integers(-9, 10, (side, side), dtype=np.int8)
    image = np.stack([base, other]).astype(np.int16)[pattern]
    image += noise[..., None]
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _clutter(draw: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """Thin grey-brown lines and specks that mean nothing, about one per 40 000 square pixels and more."""
    for _ in range(int(rng.poisson(1 + side * side / 22000))):
        x, y = rng.uniform(0, side, 2)
        dx, dy = rng.uniform(-30, 30, 2)
        shade = int(rng.integers(60, 190))
        tint = tuple(int(np.clip(shade + d, 0, 255)) for d in rng.integers(-14, 15, 3))
        if rng.random() < 0.6:
            draw.line((x, y, x + dx, y + dy), fill=tint, width=int(rng.integers(1, 4)))
        else:
            s = rng.uniform(2, 5)
            draw.ellipse((x - s, y - s, x + s, y + s), fill=tint)


def draw_scene(scene: Scene) -> tuple[Image.Image, np.ndarray]:
    """Draw the window of a scene.

    Returns:
        the RGB image of the window, and an int map (side, side) of what covers each pixel: 0 background, 1 + index of a
        thing, -1 the sign.
    """
    rng = np.random.default_rng(scene.seed)
    image = Image.fromarray(_background(scene, rng))
    side = image.width
    draw = ImageDraw.Draw(image)
    _clutter(draw, side, rng)
    left, top, _, _ = scene.region
    owner = np.zeros((side, side), dtype=np.int16)
    for index, thing in enumerate(scene.things):
        mask = thing_mask(thing)
        tint = tuple(
            int(np.clip(c + d, 0, 255)) for c, d in zip(COLORS[thing.color], rng.integers(-14, 15, 3), strict=False)
        )
        x, y = int(round(thing.x - thing.radius - left)), int(round(thing.y - thing.radius - top))
        image.paste(tint, (x, y), mask)
        x0, y0 = max(x, 0), max(y, 0)
        part = owner[y0 : y + mask.height, x0 : x + mask.width]
        part[np.asarray(mask)[y0 - y : y0 - y + part.shape[0], x0 - x : x0 - x + part.shape[1]] > 127] = index + 1
    if scene.sign:
        _draw_sign(draw, owner, scene.sign, left, top, rng)
    return image, owner


def _draw_sign(
    draw: ImageDraw.ImageDraw, owner: np.ndarray, sign: Sign, left: int, top: int, rng: np.random.Generator
) -> None:
    light, dark = (int(v) for v in (rng.integers(205, 250), rng.integers(5, 50)))
    plate, ink = (dark, light) if sign.dark else (light, dark)
    x0, y0, x1, y1 = (
        int(round(v)) for v in (sign.box[0] - left, sign.box[1] - top, sign.box[2] - left, sign.box[3] - top)
    )
    draw.rectangle((x0, y0, x1, y1), fill=(plate,) * 3, outline=(ink,) * 3, width=2)
    owner[max(y0, 0) : y1, max(x0, 0) : x1] = -1
    font = _font(sign.font_size)
    offset = font.getbbox("H")[1]
    for character, box in zip(sign.text, sign.characters, strict=False):
        draw.text(
            (box[0] - left - font.getbbox(character)[0], box[1] - top - offset), character, fill=(ink,) * 3, font=font
        )


def patch_labels(scene: Scene, owner: np.ndarray) -> dict[str, np.ndarray]:
    """What each patch of the window shows; int64 arrays (side * side), -100 where the answer is not clear.

    thing: 0 none, else 1 + colour index * number of shapes + shape index. center: 1 where a thing's centre lies.
    character: 0 none, else 1 + index in CHARACTERS. place: index of that character in its word. row, column: sixth of
    the canvas. background: index in BACKGROUNDS (-100 under things and signs). size: of the thing.
    """
    side, p = scene.window.side, scene.patch
    n, per_patch = len(scene.things), p * p
    rows, columns = np.divmod(np.arange(side * side), side)
    index = np.repeat(np.arange(side), p)
    which = (index[:, None] * side + index[None]) * (n + 2) + owner + 1
    share = np.bincount(which.ravel(), minlength=side * side * (n + 2)).reshape(side * side, n + 2) / per_patch
    on_sign, covered = share[:, 0], 1 - share[:, 1]
    thing = np.zeros(side * side, dtype=np.int64)
    thing[covered > 0.02] = -100
    size = np.full(side * side, -100, dtype=np.int64)
    for k, t in enumerate(scene.things):
        shows = share[:, k + 2] > 0.35
        size[shows] = min(SIZES - 1, max(0, int(SIZE_STEPS * t.radius / scene.canvas) - SMALLEST))
        thing[shows] = 1 + COLOR_NAMES.index(t.color) * len(SHAPES) + SHAPES.index(t.shape)
    thing[on_sign > 0.5] = 0
    center = np.zeros(side * side, dtype=np.int64)
    left, top, _, _ = scene.region
    for t in scene.things:
        center[int((t.y - top) // p) * side + int((t.x - left) // p)] = 1
    character = np.zeros(side * side, dtype=np.int64)
    place = np.full(side * side, -100, dtype=np.int64)
    if scene.sign:
        character[on_sign > 0] = -100
        y, x = (rows + 0.5) * p + top, (columns + 0.5) * p + left
        for k, (c, box) in enumerate(zip(scene.sign.text, scene.sign.characters, strict=False)):
            inside = (x >= box[0] - 1) & (x <= box[2] + 1) & (y >= box[1] - 1) & (y <= box[3] + 1)
            character[inside] = 1 + CHARACTERS.index(c)
            place[inside] = k
    full = scene.canvas // p
    background = np.where(covered < 0.02, BACKGROUNDS.index(scene.background), -100)
    return {
        "thing": thing,
        "center": center,
        "character": character,
        "place": place,
        "row": (rows + scene.window.row) * 6 // full,
        "column": (columns + scene.window.column) * 6 // full,
        "background": background,
        "size": size,
    }
