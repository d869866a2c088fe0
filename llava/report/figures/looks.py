"""Figures 1 and 8: the tokens that are kept, with captions whose untrue words are coloured, and per pivot criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llava.report import budgets
from llava.report.cells import Cell, Target
from llava.report.figures import style
from llava.report.figures.captions import Truth, judge, lines
from llava.report.figures.kept import QUESTION, Look, Scene, found_or_made, pixels
from llava.report.figures.output import Drawn, write
from llava.report.figures.scores import REMOVED, budget_name

if TYPE_CHECKING:
    from llava.report.store import Store

CRITERIA = {
    "k_norm_max": "K-norm, largest",
    "k_norm_min": "K-norm, smallest",
    "v_norm_max": "V-norm, largest",
    "v_norm_min": "V-norm, smallest",
    "attention_max": "attention, most",
    "attention_min": "attention, least",
    "random": "random",
}
"""DART's pivot criteria as panels of figure 8."""


class FromLooks:
    """Base of the figures that are drawn from kept tokens."""

    name: ClassVar[str]
    title: ClassVar[str]
    n_scenes: int
    n_words: int

    def cells(self, target: Target) -> list[Cell]:
        """None: these figures ask about scenes of their own, see `kept.py`."""
        return []

    def methods(self, target: Target) -> dict[str, Any]:
        """Title -> method."""
        raise NotImplementedError

    def draw(self, scenes: Sequence[Scene], folder: Path, target: Target) -> Drawn:
        """Draw what was recorded; `folder` holds the pictures."""
        raise NotImplementedError

    def make(self, store: Store, output: Path) -> list[Path]:
        """Write the figure's files into a folder.

        Raises:
            BadData: kept tokens are missing; the message says what to type.
            BadInput: the model's tokens form no square of patches.
        """
        methods = self.methods(store.target)
        scenes, content, folder = found_or_made(self.name, store, methods, self.n_scenes, self.n_words)
        with style.drawing():
            drawn = self.draw(scenes, folder, store.target)
            kept = [{one.title: list(one.kept) for one in scene.looks} for scene in scenes]
            facts = {"artefact": self.name, "model": content["model"], "question": QUESTION, "kept": kept}
            made = f"{content['model']['name']} on {content['device']}, {content['dtype']}, question: “{QUESTION}”"
            notes = [*drawn.notes, f"Made with {made}."]
            return write(Drawn(drawn.picture, drawn.title, drawn.rows, notes, facts, palette=True), output, self.name)


@dataclass(frozen=True)
class Captions(FromLooks):
    """Figure 1: what is kept of an image, and what the model says about it."""

    removed: float = REMOVED[-1]
    names: tuple[str, ...] = ("none", "dart", "fastv")
    n_scenes: int = 24
    shown: int = 2
    n_words: int = 64
    name: ClassVar[str] = "figure1"
    title: ClassVar[str] = "Figure 1: kept tokens and captions"

    def methods(self, target: Target) -> dict[str, Any]:
        return {name: budgets.options(name, self.removed, target).build(target.rule) for name in self.names}

    def draw(self, scenes: Sequence[Scene], folder: Path, target: Target) -> Drawn:
        from matplotlib import pyplot

        shown, columns = scenes[: self.shown], len(self.names)
        figure = pyplot.figure(figsize=(style.WIDTH, 4.42 * len(shown)))
        grid = figure.add_gridspec(
            3 * len(shown), columns, height_ratios=[0.4, 3, 0.86] * len(shown), wspace=0.04, hspace=0.06
        )
        for place, scene in enumerate(shown):
            truth = figure.add_subplot(grid[3 * place, :])
            truth.axis("off")
            told = wrapped(f"In the image: {scene.truth.words}.", 134)
            truth.text(0, 1, told, va="top", fontsize=9.5, color="#555555", transform=truth.transAxes)
            for column, own in enumerate(scene.looks):
                picture = figure.add_subplot(grid[3 * place + 1, column])
                label, colour, _ = style.METHODS.get(own.title, (own.title, style.INK, ""))
                counted = (
                    f"all {own.grid[0] * own.grid[1]} tokens" if own.title == "none" else f"{len(own.kept)} tokens"
                )
                show(picture, pixels(scene, own, folder))
                picture.set_title(f"{label}: {counted}", fontweight="bold", color=colour)
                words = figure.add_subplot(grid[3 * place + 2, column])
                write_words(words, judge(own.answer, scene.truth).pieces)
        figure.subplots_adjust(0.008, 0.0, 0.992, 0.99)
        rows = [self._row(number, scene.truth, own) for number, scene in enumerate(scenes) for own in scene.looks]
        notes = [
            "Red and underlined: not true of the image. Judged are colour and shape of each thing named, and the text "
            "of the sign; the scenes are drawn, so what is in them is known. Nothing else is coloured.",
            f"Shown are the first {len(shown)} of {len(scenes)} scenes of a fixed seed that no training stage draws "
            "from; none was picked.",
            *self._totals(scenes),
            "The paper's figure is LLaVA-1.5-7B on a photograph; it prints no numbers.",
        ]
        return Drawn(figure, f"{self.title} ({target.name})", rows, notes)

    @staticmethod
    def _row(number: int, truth: Truth, own: Look) -> dict[str, Any]:
        judged = judge(own.answer, truth)
        return {
            "scene": number,
            "method": own.title,
            "caption": own.answer,
            "truth": truth.words,
            "kept": len(own.kept),
            "claims": judged.claims,
            "untrue": judged.untrue,
            "left_out": judged.left_out,
        }

    @staticmethod
    def _totals(scenes: Sequence[Scene]) -> list[str]:
        told = []
        for place, first in enumerate(scenes[0].looks):
            judged = [judge(scene.looks[place].answer, scene.truth) for scene in scenes]
            claims, untrue = sum(one.claims for one in judged), sum(one.untrue for one in judged)
            share = f" ({100 * untrue / claims:.1f} %)" if claims else ""
            left = sum(one.left_out for one in judged)
            told.append(f"{style.method_name(first.title)} {untrue} of {claims}{share}, {left} left out")
        return [f"Untrue claims over all {len(scenes)} captions, and what the captions leave out: {'; '.join(told)}."]


@dataclass(frozen=True)
class PivotMasks(FromLooks):
    """Figure 8: the tokens DART keeps under each of its seven pivot criteria."""

    removed: float = REMOVED[1]
    n_scenes: int = 1
    n_words: int = 1
    name: ClassVar[str] = "figure8"
    title: ClassVar[str] = "Figure 8: kept tokens under seven pivot criteria"

    def methods(self, target: Target) -> dict[str, Any]:
        return {
            name: budgets.options("dart", self.removed, target, set=(f"criterion={name}",)).build(target.rule)
            for name in CRITERIA
        }

    def draw(self, scenes: Sequence[Scene], folder: Path, target: Target) -> Drawn:
        from matplotlib import pyplot

        scene = scenes[0]
        reference = scene.looks[0]
        figure, axes = pyplot.subplots(2, 4, figsize=(style.WIDTH, 5.35), layout="constrained")
        whole = range(reference.grid[0] * reference.grid[1])
        panels = [("the image", pixels(scene, reference, folder, whole), f"{len(whole)} tokens")]
        for own in scene.looks:
            shared = "the default" if own is reference else f"{100 * own.overlap(reference):.0f} % shared"
            below = f"{len(own.kept)} tokens, {shared}"
            panels.append((CRITERIA[own.title], pixels(scene, own, folder), below))
        for axis, (title, picture, below) in zip(axes.flat, panels, strict=True):
            show(axis, picture)
            axis.set_title(title)
            axis.set_xlabel(below, fontsize=9.5)
        notes = [
            "Faded patches lost their token. `shared`: with the set of the default criterion, largest K-norm; "
            f"independent sets would share {100 * reference.chance:.0f} % on average. One image; averages over a data "
            "set come from `python -m llava.analysis overlap`.",
            "The paper's figure is a photograph; it prints no numbers.",
        ]
        rows = [self._row(own, reference) for own in scene.looks]
        return Drawn(
            figure, f"{self.title} (DART on {target.name}, {budget_name(self.removed, target)} asked for)", rows, notes
        )

    @staticmethod
    def _row(own: Look, reference: Look) -> Mapping[str, Any]:
        return {
            "criterion": own.title,
            "kept": len(own.kept),
            "patches": own.grid[0] * own.grid[1],
            "shared_with_k_norm_max_percent": 100 * own.overlap(reference),
            "chance_percent": 100 * reference.chance,
        }


def show(axis: Any, picture: Any) -> None:
    """Show a picture without any frame or ticks."""
    axis.imshow(picture, interpolation="none")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)


def write_words(axis: Any, pieces: Sequence[tuple[str, bool]], longest: int = 38) -> None:
    """Write a judged caption into an axis, untrue words in red and underlined."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

    axis.axis("off")
    rows: list[Any] = []
    for line in lines(pieces, longest):
        words: list[Any] = []
        for word in line:
            parts: list[Any] = []
            for text, wrong in word:
                look = {"color": style.VERMILION, "fontweight": "bold"} if wrong else {"color": style.INK}
                parts.append(TextArea(underlined(text) if wrong else text, textprops={"fontsize": 9.5, **look}))
            words.append(HPacker(children=parts, pad=0, sep=0, align="baseline"))
        rows.append(HPacker(children=words, pad=0, sep=3.4, align="baseline"))
    box = VPacker(children=rows or [TextArea("(nothing)")], pad=0, sep=3, align="left")
    axis.add_artist(AnchoredOffsetbox("upper left", child=box, pad=0, borderpad=0, frameon=False))


def underlined(word: str) -> str:
    """The word with a line below every character, for eyes that do not see the colour."""
    return "".join(f"{letter}\u0332" for letter in word)


def wrapped(text: str, longest: int) -> str:
    """The text in lines of at most `longest` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, longest))
