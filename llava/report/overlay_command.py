"""The command `python -m llava.report overlay`: kept tokens of an image or video under several methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from llava.commandline import folder_problems, say, too_small
from llava.errors import ConfigurationError

ENDINGS = (".png", ".svg", ".pdf")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Overlay:
    """Draw which visual tokens each method keeps of an image or video, with its answer below."""

    image: tyro.conf.Positional[str]
    """Image file or link, or a video file."""
    question: str = "Describe the image."
    """What is asked."""
    methods: str = "none,dart,random"
    """Methods, separated by commas, or `all`."""
    criteria: str = ""
    """Pivot criteria of DART, separated by commas, or `all`: one panel each instead of one for `dart`."""
    keep: str = "128"
    """Visual tokens to keep of an image: a count or a fraction; several with commas."""
    model_path: str | None = None
    """Checkpoint of LLaVA-1.5, LLaVA-NeXT, Video-LLaVA or Qwen-VL; default: the embedded llava-nano."""
    max_new_tokens: int = 48
    """Longest answer."""
    output: Path = Path("kept_tokens.png")
    """Picture to write: .png, .svg or .pdf."""

    def problems(self) -> list[str]:
        found = too_small(self, max_new_tokens=1)
        if self.output.suffix not in ENDINGS:
            found.append(f"--output {self.output}: give a name that ends in .png, .svg or .pdf.")
        found += folder_problems("--output", self.output.parent)
        try:
            self.chosen()
        except ConfigurationError as error:
            found += error.problems
        return found

    def chosen(self) -> dict[str, Any]:
        """Title of a panel -> method."""
        from llava.methodlists import budgets, methods_of

        return methods_of(self.methods, self.criteria, budgets(self.keep))


def overlay(config: Overlay) -> int:
    """Write the picture; methods that cannot work with the model are left out with a sentence."""
    need_matplotlib()
    import llava
    from llava.commandline import BAD_INPUT, DONE, warn
    from llava.errors import UnsupportedModel
    from llava.model.images import load_image
    from llava.report import overlay as view

    moving = config.image.lower().endswith(VIDEOS)
    image = None if moving else load_image(config.image)
    methods = config.chosen()
    model, processor = llava.load(config.model_path)
    video = processor.open_video(config.image) if moving else None
    panels, left_out = [], {}
    for title, method in methods.items():
        try:
            panels += view.panels(
                model, processor, image, config.question, {title: method}, config.max_new_tokens, video=video
            )
        except (UnsupportedModel, ConfigurationError) as error:
            if len(methods) == 1:
                raise
            left_out[title] = error
    for title, reason in left_out.items():
        warn(f"{title} was left out: {reason}")
    if not panels:
        return BAD_INPUT
    view.draw(panels, config.output, config.question)
    say(f"Written: {config.output}")
    return DONE


def need_matplotlib() -> None:
    """Refuse early where pictures cannot be drawn.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigurationError("Pictures need matplotlib: pip install 'llava-dart[report]'.") from error
