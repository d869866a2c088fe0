"""`python -m llava.report COMMAND`: the paper's tables, figures and claims from results; summaries, pictures, pages.

table N, figure N, claims, all, pack: `reproduce.py`; overlay: `overlay_command.py`; serving: `serving.py`;
priors: `priors.py`; summary, support, methods: here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from llava import commandline
from llava.commandline import say
from llava.errors import ConfigurationError
from llava.report import reproduce
from llava.report.overlay_command import Overlay, need_matplotlib, overlay
from llava.report.priors import Priors, priors
from llava.report.serving import Serving, serving


@dataclass(frozen=True)
class Summary:
    """Show all runs of a folder in one table: methods and budgets down, benchmarks across."""

    results: tyro.conf.Positional[Path] = Path("results")
    """Folder with results JSON files, or one such file."""
    no_times: bool = False
    """Leave the speed-up out, for runs that shared the machine."""
    mark: str = "summary"
    """Name of the marks in the file of --update."""
    output: Path | None = None
    """Also write the table to this file: Markdown, or CSV when it ends in .csv."""
    update: Path | None = None
    """Markdown file whose lines between `<!-- MARK -->` and `<!-- end of MARK -->` become this table."""


@dataclass(frozen=True)
class Support:
    """Show which methods, inputs and attention kernels work with which models."""

    update: Path | None = None
    """Markdown file whose lines between `<!-- support -->` and `<!-- end of support -->` become this table."""


@dataclass(frozen=True)
class Methods:
    """Write a page for every method, with a picture of the tokens it keeps, and their index."""

    only: str | None = None
    """One method; the index is written either way."""
    output: Path = Path("docs/methods")
    """Folder of the pages."""
    pictures: Path = Path("images/methods")
    """Folder of the pictures."""
    results: Path = Path("docs/results/nano-methods")
    """Folder with the results JSON files the pages show."""
    image: str = "playground/data/eval/textvqa/mini/train_images/00b71993652b176b.jpg"
    """Image file or link for the pictures."""
    text_only: bool = False
    """Leave the pictures as they are; no model is run."""

    def problems(self) -> list[str]:
        from llava.reduction import registry

        try:
            registry.get(self.only or "none")
        except ConfigurationError as error:
            return error.problems
        return []


def summary(config: Summary) -> None:
    import csv

    from llava.eval import screen
    from llava.report import records
    from llava.report import summary as view

    found = records.read(config.results)
    header, rows = view.table(found, not config.no_times)
    for line in ("", view.setting(found), "", *screen.table(header, rows), ""):
        say(line)
    text = f"{view.markdown(header, rows)}\n\n{view.setting(found)}\n"
    if config.update is not None:
        view.update(config.update, text, config.mark)
    if config.output is None:
        return
    config.output.parent.mkdir(parents=True, exist_ok=True)
    with open(config.output, "w", encoding="utf-8", newline="") as file:
        if config.output.suffix == ".csv":
            csv.writer(file).writerows([header, *rows])
        else:
            file.write(text)
    say(f"Written: {config.output}")


def support(config: Support) -> None:
    from llava.model.support import table
    from llava.report.summary import update

    text = table()
    say(text)
    if config.update is not None:
        update(config.update, f"{text}\n", "support")


def methods(config: Methods) -> None:
    from llava.reduction import registry
    from llava.report import pages, records

    place = pages.Place(config.output, config.pictures, config.results)
    found = records.read(config.results) if config.results.is_dir() else []
    names = [config.only] if config.only else pages.names()
    if not config.text_only:
        _draw_methods(config, [name for name in names if pages.drawable(registry.get(name))], found)
    config.output.mkdir(parents=True, exist_ok=True)
    for name in names:
        (config.output / f"{name}.md").write_text(pages.page(name, found, place), encoding="utf-8")
    (config.output / "README.md").write_text(pages.index(place), encoding="utf-8")
    say(f"Written: {len(names)} pages in {config.output}")


def _draw_methods(config: Methods, names: list[str], found: list[Any]) -> None:
    need_matplotlib()
    import llava
    from llava.model.images import load_image
    from llava.report import methodpictures, pages

    image = load_image(config.image)
    model, processor = llava.load()
    for name in names:
        path = config.pictures / f"{name}.png"
        methodpictures.write(path, model, processor, image, pages.QUESTION, pages.settings(name, found))
        say(f"Written: {path}")


COMMANDS: dict[str, tuple[Callable[[Any], int | None], type]] = {
    "table": (reproduce.table, reproduce.Table),
    "figure": (reproduce.figure, reproduce.Figure),
    "claims": (reproduce.claims, reproduce.Claims),
    "all": (reproduce.everything, reproduce.All),
    "pack": (reproduce.pack, reproduce.Pack),
    "summary": (summary, Summary),
    "overlay": (overlay, Overlay),
    "priors": (priors, Priors),
    "serving": (serving, Serving),
    "support": (support, Support),
    "methods": (methods, Methods),
}


def main(argv: list[str] | None = None) -> int:
    return commandline.run_command(COMMANDS, "llava.report", argv)


if __name__ == "__main__":
    sys.exit(main())
