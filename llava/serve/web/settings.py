"""What a visitor of the demo asked for, as a query string and as words of the command line; and its limits."""

from __future__ import annotations

import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llava.errors import ConfigurationError, LlavaError
from llava.methodoptions import MethodOptions

PRESET = "preset "
PARTS = ":"  # between method, budget and options in a link


@dataclass(frozen=True)
class Limits:
    """What the demo accepts.

    Args:
        image_bytes: size of an uploaded file.
        image_pixels: width times height of an image.
        uploads_bytes: all that visitors uploaded within the last hour or two.
        video_bytes: size of an uploaded video.
        video_pixels: width times height of its frames.
        video_seconds, video_frames: its length.
        question: characters of a question.
        options: characters of the options of one method.
        methods: methods beside the unpruned model.
        turns: questions of one conversation.
        waiting: visitors in the queue; one is served at a time.
        new_tokens: longest answer.
    """

    image_bytes: int = 10 * 2**20
    image_pixels: int = 16_000_000
    uploads_bytes: int = 2**30
    video_bytes: int = 20 * 2**20
    video_pixels: int = 2_500_000
    video_seconds: float = 30.0
    video_frames: int = 1800
    question: int = 500
    options: int = 200
    methods: int = 3
    turns: int = 8
    waiting: int = 16
    new_tokens: int = 128


@dataclass(frozen=True)
class Choice:
    """One method as it was typed.

    Args:
        method: name; two joined by "+" act one after another.
        budget: a count (64), a fraction in (0, 1] (0.11), "preset NAME", or empty: the method's default.
        options: further options of the method, NAME=VALUE with spaces between.
    """

    method: str
    budget: str = ""
    options: str = ""

    @property
    def title(self) -> str:
        """Method and budget in a few characters."""
        return f"{self.method} {self.budget}".strip()

    def method_options(self, limits: Limits | None = None) -> MethodOptions:
        """Return the same as the command line's options; files of a visitor's own are no part of them.

        Raises:
            ConfigurationError: the budget is no number, or the options are too long or cannot be split.
        """
        problems, limits, keep, preset, words = [], limits or Limits(), None, None, []
        budget = self.budget.strip()
        if len(self.options) > limits.options or len(self.method) + len(budget) > limits.options:
            problems.append(
                f"{self.method[:20]}: what was typed is too long ({limits.options} characters are allowed)."
            )
        elif budget.startswith(PRESET):
            preset = budget.removeprefix(PRESET).strip()
        elif budget:
            keep = _number(budget)
            if keep is None:
                problems.append(
                    f"{self.method}: budget {budget!r} is not a number: give a count of tokens (64), a fraction in "
                    "(0, 1] (0.11), or `preset 64`."
                )
        try:
            words = shlex.split(self.options) if not problems else []
        except ValueError as error:
            problems.append(f"{self.method}: options {self.options!r} cannot be read ({error}).")
        if problems:
            raise ConfigurationError(*problems)
        return MethodOptions(method=self.method, keep=keep, preset=preset, set=tuple(words))

    def build(self, rule: str, limits: Limits | None = None) -> Any:
        """Return the method, as `python -m llava.serve.cli` builds it from `words`.

        Args:
            rule: family whose released budget rule applies.

        Raises:
            ConfigurationError: everything that is wrong with it.
        """
        return self.method_options(limits).build(rule, seed=0)

    def words(self) -> list[str]:
        """Return the words of the command line that choose this method."""
        options = self.method_options()
        words = ["--method", options.method]
        if options.preset is not None:
            words += ["--preset", options.preset]
        if options.keep is not None:
            words += ["--keep", str(options.keep)]
        return words + [word for option in options.set for word in ("--set", option)]


NONE = Choice("none")


@dataclass(frozen=True)
class Setting:
    """A question, the methods to compare, and the example image or video if it is one of ours."""

    question: str = ""
    choices: tuple[Choice, ...] = ()
    example: str = ""

    def query(self) -> str:
        """Return the query string of a link that fills the page with this setting."""
        pairs = [("q", self.question)] if self.question else []
        for number, choice in enumerate(self.choices, 1):
            pairs.append((f"m{number}", PARTS.join((choice.method, choice.budget, choice.options)).rstrip(PARTS)))
        pairs += [("image", self.example)] if self.example else []
        return "?" + "&".join(f"{name}={quote(value, safe=',.:')}" for name, value in pairs)

    @staticmethod
    def from_query(given: Mapping[str, str], examples: Container[str], limits: Limits) -> Setting:
        """Return what a link asks for; what it has too much of, or does not know, is left out.

        Args:
            given: the query string, decoded.
            examples: names of the examples.
        """
        typed = [given.get(f"m{number}", "") for number in range(1, limits.methods + 1)]
        image = given.get("image", "")
        return Setting(
            question=given.get("q", "")[: limits.question],
            choices=tuple(
                Choice(*text.split(PARTS, 2)) for text in typed if text.strip() and len(text) <= limits.options
            ),
            example=image if image in examples else "",
        )


def question_problem(question: str, limits: Limits) -> str | None:
    """Return what is wrong with a question; None if nothing is."""
    if not question.strip():
        return "The question is empty: type one, for example `What is written on the sign?`."
    if len(question) > limits.question:
        return f"The question has {len(question)} characters: {limits.question} are allowed."
    return None


def choice_problems(choices: Sequence[Choice], rule: str, limits: Limits) -> list[str]:
    """Return one sentence for each mistake in the methods, all of them together."""
    problems = []
    if len(choices) > limits.methods:
        problems.append(f"{len(choices)} methods were given: {limits.methods} can be compared at once.")
    for number, choice in enumerate(choices[: limits.methods]):
        if choice in choices[:number]:
            problems.append(f"{choice.title}: given twice.")
            continue
        try:
            choice.build(rule, limits)
        except LlavaError as error:
            problems += getattr(error, "problems", [str(error)])
    return problems


def command_line(choice: Choice, media: Sequence[str], questions: Sequence[str], shared: Sequence[str] = ()) -> str:
    """Return what to type in a terminal for the same answers.

    Args:
        choice: method and budget.
        media: words that name the image or video, `--image-file PATH`.
        questions: those of the conversation so far; several go to the chat's standard input.
        shared: further words (model, device, dtype, ...).
    """
    words = ["python", "-m", "llava.serve.cli", *shared, *media, *choice.words()]
    if len(questions) == 1:
        one = questions[0]
        return shlex.join([*words, *(("-p", one) if not one.startswith("-") else (f"--prompt={one}",))])
    lines = " ".join(shlex.quote(" ".join(question.split())) for question in questions)
    return f"printf '%s\\n' {lines} | {shlex.join(words)}"


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None
