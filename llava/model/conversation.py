"""Conversation templates: how turns become the one string a model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

from llava.errors import BadInput

IMAGE_MARKER, VIDEO_MARKER = "<image>", "<video>"

Turn = tuple[str, str | None]


@dataclass(frozen=True)
class Template:
    """A two-speaker template of LLaVA (its `SeparatorStyle.TWO`).

    Args:
        name: what `--conv-mode` calls it.
        system: sentence before the first turn.
        user, assistant: names of the speakers.
        separator: stands after the system sentence and after each user message.
        stop: stands after each answer; it is the tokenizer's end-of-sequence token.
    """

    name: str
    system: str
    user: str
    assistant: str
    separator: str
    stop: str

    def render(self, turns: Sequence[Turn]) -> str:
        """Return the text of a conversation; an answer of None leaves the prompt open for the model to continue."""
        parts = [self.system, self.separator]
        for question, answer in turns:
            parts += [f"{self.user}: {question}{self.separator}{self.assistant}:"]
            if answer is not None:
                parts += [f" {answer}{self.stop}"]
        return "".join(parts)


VICUNA_V1 = Template(
    name="vicuna_v1",
    system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    user="USER",
    assistant="ASSISTANT",
    separator=" ",
    stop="</s>",
)

TEMPLATES = {template.name: template for template in (VICUNA_V1,)}


def template(name: str) -> Template:
    """Return the template of that name.

    Raises:
        BadInput: unknown name; the message lists the known ones.
    """
    if name not in TEMPLATES:
        raise BadInput(f"Unknown conversation mode '{name}'. Known: {', '.join(sorted(TEMPLATES))}.")
    return TEMPLATES[name]


def mark_images(turns: Sequence[Turn], n_images: int) -> list[Turn]:
    """Return the turns with one image marker per image, as LLaVA puts them: each on its own line before the first text.

    Markers that the texts already hold are left where the user put them.

    Raises:
        BadInput: the texts hold some markers, but not as many as there are images.
    """
    return _marked(turns, n_images, IMAGE_MARKER, "images")


def mark_videos(turns: Sequence[Turn], n_videos: int) -> list[Turn]:
    """Return the turns with one video marker per video, in the same way as `mark_images`.

    Raises:
        BadInput: the texts hold some markers, but not as many as there are videos. Without videos, `<video>` is text.
    """
    return _marked(turns, n_videos, VIDEO_MARKER, "videos") if n_videos else list(turns)


def _marked(turns: Sequence[Turn], n_given: int, marker: str, what: str) -> list[Turn]:
    marked = sum(question.count(marker) for question, _ in turns)
    if marked == n_given:
        return list(turns)
    if marked:
        raise BadInput(
            f"The text has {marked} {marker} markers but there are {n_given} {what}: "
            f"write one {marker} for each of them, or none at all to have them put first."
        )
    (question, answer), *rest = turns
    return [(f"{marker}\n" * n_given + question, answer), *rest]
