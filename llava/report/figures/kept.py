"""What figures 1 and 8 are drawn from: kept tokens and answers of several methods on drawn scenes, as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from llava.errors import BadData, BadInput, LlavaError
from llava.eval import identity, results
from llava.report.figures.captions import Truth

if TYPE_CHECKING:
    from llava.report.cells import Source
    from llava.report.store import Store

KIND = "kept"
FORMAT = 1
QUESTION = "Describe the image."
SEED = 77_000_001
"""Of the scenes in figures 1 and 8; no training set and no mini benchmark draws from it."""


@dataclass(frozen=True)
class Look:
    """One method on one image.

    Args:
        title: the method, or the pivot criterion.
        method: name and options.
        kept: indices of the patches whose tokens the last layer sees, row by row, ascending.
        grid: rows and columns of patches.
        answer: what the model says.
    """

    title: str
    method: dict[str, Any]
    kept: tuple[int, ...]
    grid: tuple[int, int]
    answer: str

    def overlap(self, other: Look) -> float:
        """Share of the kept tokens that the other keeps too."""
        return len(set(self.kept) & set(other.kept)) / len(self.kept) if self.kept else 0.0

    @property
    def chance(self) -> float:
        """The expected share if the other kept as many at random."""
        return len(self.kept) / (self.grid[0] * self.grid[1])


@dataclass(frozen=True)
class Scene:
    """One image, what is true of it, and what the methods made of it; `picture` is a PNG beside the JSON file."""

    picture: str
    truth: Truth
    looks: tuple[Look, ...]


def scenes(number: int) -> list[tuple[Image.Image, Truth]]:
    """Draw the first scenes of a fixed seed: several coloured shapes and a sign each."""
    from llava.train.mini_scenes import wide_scene
    from llava.train.scenes import draw_scene

    rng = np.random.default_rng(SEED)
    drawn = [wide_scene(rng, sign=1.0) for _ in range(number)]
    return [(draw_scene(scene)[0], Truth.of(scene)) for scene in drawn]


def look(model: Any, processor: Any, image: Image.Image, title: str, method: Any, n_words: int) -> tuple[Look, Any]:
    """Ask about one image under one method; returns what was kept and the picture as the vision tower sees it.

    Raises:
        BadInput: the visual tokens of this family do not form one square of patches.
    """
    from llava.report.overlay import tower_image

    inputs = processor([processor.prompt(QUESTION)], [[image]]).to(model.device)
    with method(model) as pruning:
        output = model.generate(**inputs, max_new_tokens=n_words, do_sample=False)
    report = pruning.last
    side = round(report.visual[0] ** 0.5)
    if side * side != report.visual[0] or inputs["pixel_values"][0].ndim != 3:
        raise BadInput(
            f"{report.visual[0]} visual tokens are no square of patches: this figure is for LLaVA-1.5 models; "
            "`python -m llava.report overlay` draws the others."
        )
    answer = processor.decode(output[:, inputs["input_ids"].shape[1] :])[0]
    kept = tuple(int(index) for index in report.indices[0][0])
    seen = tower_image(inputs["pixel_values"][0], processor.image_mean, processor.image_std)
    return Look(title, identity.method_record(method), kept, (side, side), answer), seen


def record(name: str, store: Store, methods: Mapping[str, Any], n_scenes: int, n_words: int) -> Path:
    """Run every method on every scene and write the JSON file and the pictures; returns the file."""
    loaded = store.loaded()
    folder = store.source.folders[0]
    target = store.target.name
    found = []
    for number, (image, truth) in enumerate(scenes(n_scenes)):
        looks, seen = [], None
        for title, method in methods.items():
            own, seen = look(loaded.model, loaded.processor, image, title, method, n_words)
            looks.append(own)
        picture = f"{KIND}-{name}-{target}-{number}.png"
        folder.mkdir(parents=True, exist_ok=True)
        if seen is not None:
            seen.save(folder / picture)
        found.append({"picture": picture, "truth": asdict(truth), "looks": [asdict(one) for one in looks]})
    content = {
        KIND: name,
        "format": FORMAT,
        "question": QUESTION,
        "seed": SEED,
        "model": {"name": target, "weights_digest": loaded.digest},
        "code": identity.code_digest(),
        **identity.hardware(loaded.model),
        **identity.surroundings(),
        "scenes": found,
    }
    path = folder / f"{KIND}-{name}-{target}.json"
    results.write(path, content)
    return path


def read(path: Path) -> tuple[list[Scene], dict[str, Any]]:
    """Return the scenes of a file, and all of its content.

    Raises:
        BadData: the file is not of this format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise BadData(f"{path} has format {content['format']!r}, this version reads {FORMAT}: run again.")
        return [
            Scene(
                scene["picture"],
                Truth.read(scene["truth"]),
                tuple(
                    Look(one["title"], one["method"], tuple(one["kept"]), tuple(one["grid"]), one["answer"])
                    for one in scene["looks"]
                ),
            )
            for scene in content["scenes"]
        ], content
    except LlavaError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadData(f"{path} cannot be read ({error!r}): delete it and run again.") from error


def find(name: str, source: Source, target: str) -> Path | None:
    """The file of a figure for a model in the result folders, if there is one."""
    paths = (folder / f"{KIND}-{name}-{target}.json" for folder in source.folders)
    return next((path for path in paths if path.is_file()), None)


def found_or_made(
    name: str, store: Store, methods: Mapping[str, Any], n_scenes: int, n_words: int
) -> tuple[list[Scene], dict[str, Any], Path]:
    """Return the scenes of a figure; computed first if they are missing and `--run` was given.

    Raises:
        BadData: they are missing; the message says what to type.
    """
    path = find(name, store.source, store.target.name)
    if path is not None:
        found, content = read(path)
        if _of(content, methods, n_scenes) and _current(content, store):
            return found, content, path.parent
    if not store.source.run:
        number = name.removeprefix("figure")
        words = f"python -m llava.report figure {number} {store.source.flags}".strip()
        raise BadData(f"{name} needs kept tokens and captions of {store.target.name}, type: {words} --run")
    made = record(name, store, methods, n_scenes, n_words)
    return *read(made), made.parent


def _of(content: Mapping[str, Any], methods: Mapping[str, Any], n_scenes: int) -> bool:
    """Whether a file holds these methods on so many scenes."""
    wanted = [identity.method_record(method) for method in methods.values()]
    return len(content["scenes"]) >= n_scenes and all(
        [one["method"] for one in scene["looks"]] == wanted for scene in content["scenes"]
    )


def _current(content: Mapping[str, Any], store: Store) -> bool:
    """Whether a file is of the model (with `--fresh` also of the code) that is meant; asked only when it may run."""
    if not store.source.run:
        return True
    of_the_code = not store.source.fresh or content.get("code") == identity.code_digest()
    return of_the_code and content["model"]["weights_digest"] == store.loaded().digest


def pixels(scene: Scene, own: Look, folder: Path, shown: Sequence[int] | None = None) -> np.ndarray:
    """The scene's picture with dropped patches faded, (height, width, 3) uint8."""
    from llava.report.overlay import faded

    path = folder / scene.picture
    if not path.is_file():
        raise BadData(f"{path} is missing, the picture of the kept tokens: run the figure again with --run.")
    return faded(Image.open(path), own.kept if shown is None else shown, own.grid)
