"""Images and a video to pick from in the demo, with a question for each; drawn by `llava.train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llava.serve.web.media import IMAGE, VIDEO

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """An image or video and a question.

    Args:
        file: its path.
        question: what the embedded model can answer about it.
    """

    file: Path
    question: str

    @property
    def kind(self) -> str:
        """IMAGE or VIDEO."""
        return IMAGE if self.file.suffix == ".jpg" else VIDEO

    @property
    def picture(self) -> Path:
        """The small picture to pick it by."""
        return self.file.with_suffix(".jpg")

    @property
    def shown(self) -> str:
        """The path to type in a command line: from the working directory, if the file is below it."""
        here = Path.cwd()
        return str(self.file.relative_to(here) if self.file.is_relative_to(here) else self.file)


EXAMPLES = {
    "stars": Example(FOLDER / "stars.jpg", "Describe the image."),
    "sign": Example(FOLDER / "sign.jpg", "What number is on the sign?"),
    "letters": Example(FOLDER / "letters.jpg", "What is written on the sign?"),
    "shapes": Example(FOLDER / "shapes.jpg", "How many crosses are there?"),
    "clip": Example(FOLDER / "clip.mp4", "Which direction does the blue star move?"),
}
