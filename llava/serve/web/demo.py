"""The demo without a page: settings in, one column per method out, answers streaming; knows no Gradio."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from PIL import Image

from llava.errors import BadInput, ConfigurationError, LlavaError
from llava.model.families import family_of
from llava.model.images import FORMATS, load_image
from llava.model.pruning import Pruning
from llava.model.report import Report
from llava.reduction import registry
from llava.report.overlay_boards import Board, boards
from llava.serve.session import Answer, Conversation, Sampling
from llava.serve.web.settings import NONE, Choice, Limits, Setting, choice_problems, question_problem

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STOPPED = "Stopped."
NO_TOKEN = -1
WARM_UP_SIDE, WARM_UP_TOKENS = 64, 2


@dataclass
class Turn:
    """One question and what a method made of it.

    Args:
        question: its text.
        text: the answer so far.
        answer: timings, once it is complete.
        report: token accounting of the prefill, once it is complete.
        problem: why there is no answer; empty if there is one.
    """

    question: str
    text: str = ""
    answer: Answer | None = None
    report: Report | None = None
    problem: str = ""
    status: str = WAITING

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed after the first token; None for answers of one token."""
        answer = self.answer
        if answer is None or answer.first_token_seconds is None or answer.n_tokens < 2:
            return None
        return (answer.n_tokens - 1) / max(answer.seconds - answer.first_token_seconds, 1e-9)


@dataclass
class Column:
    """One method on one conversation."""

    choice: Choice
    method: Any
    conversation: Conversation
    turns: list[Turn] = field(default_factory=list)


@dataclass
class Talk:
    """One conversation about one image, in several columns; the first is the unpruned model.

    Args:
        setting: the latest question and the methods.
        image: what it is about.
        image_name: what to call the image's file in a command line.
        boards: what the vision tower is shown of it.
    """

    setting: Setting
    image: Image.Image
    image_name: str
    columns: list[Column]
    boards: list[Board]

    @property
    def broken(self) -> bool:
        """Whether the latest question was not put to all columns to the end."""
        latest = [column.turns[-1] for column in self.columns if column.turns]
        return any(turn.status in (WAITING, RUNNING) or turn.problem == STOPPED for turn in latest)

    def goes_on(self, choices: Sequence[Choice], image_name: str) -> bool:
        """Whether a further question belongs here, rather than to a new conversation."""
        return not self.broken and self.setting.choices == tuple(choices) and self.image_name == image_name

    @property
    def questions(self) -> list[str]:
        """All questions so far."""
        return [turn.question for turn in self.columns[0].turns]


class Demo:
    """A model and what visitors may do with it.

    Args:
        model, processor: as `llava.load` returns them.
        limits: what is accepted.
    """

    def __init__(self, model: Any, processor: Any, limits: Limits | None = None):
        self.model, self.processor, self.limits = model, processor, limits or Limits()
        self.family = family_of(model)
        decoder: Any = self.family.decoder(model)
        self.n_layers = len(decoder.layers)
        self._alone = threading.Lock()  # forward passes of one model must not run at once

    def warm_up(self) -> None:
        """Answer one question, so that the first visitor's times are not those of a cold start."""
        conversation = self._conversation(WARM_UP_TOKENS)
        conversation.add_image(Image.new("RGB", (WARM_UP_SIDE, WARM_UP_SIDE)))
        conversation.ask("?")

    def methods(self) -> list[str]:
        """Names of the methods that work with this model, as far as is known before they run."""
        return [name for name in registry.names() if name != NONE.method and self._works(name)]

    def open_upload(self, path: str | Path | None) -> Image.Image:
        """Return the image of an uploaded file.

        Raises:
            BadInput: there is none, it is too large, or it is no image.
        """
        if path is None:
            raise BadInput("There is no image: upload one, or pick one of the examples.")
        file, limits = Path(path), self.limits
        size = file.stat().st_size
        if size > limits.image_bytes:
            raise BadInput(
                f"The image file has {size / 2**20:.1f} MB: {limits.image_bytes / 2**20:.0f} MB are allowed. Save it "
                "smaller, or as JPEG."
            )
        data = file.read_bytes()
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return load_image(io.BytesIO(data))  # which says what is wrong with it
        if width * height > limits.image_pixels:
            raise BadInput(
                f"The image has {width} x {height} pixels: {limits.image_pixels / 1e6:.0f} million are allowed. Make "
                "it smaller."
            )
        return load_image(io.BytesIO(data))

    def begin(self, setting: Setting, image: Image.Image, image_name: str) -> Talk:
        """Return a new conversation.

        Raises:
            ConfigurationError: everything that is wrong with the methods and budgets.
        """
        problems = choice_problems(setting.choices, self.family.budget_rule, self.limits)
        if problems:
            raise ConfigurationError(*problems)
        columns = []
        for choice in (NONE, *setting.choices):
            conversation = self._conversation(self.limits.new_tokens)
            conversation.add_image(image)
            columns.append(Column(choice, choice.build(self.family.budget_rule, self.limits), conversation))
        return Talk(setting, image, image_name, columns, self.boards(image))

    def boards(self, image: Image.Image) -> list[Board]:
        """Return what the vision tower is shown of an image; where its tokens stand there, if that is known."""
        try:
            return boards(self.model, self.processor, self.processor([self.processor.prompt("?")], [[image]]))[0]
        except LlavaError:
            return [Board(np.asarray(image), np.full((image.height, image.width), NO_TOKEN))]

    def ask(self, talk: Talk, question: str) -> Iterator[int]:
        """Put a question to all columns, one after the other; yields the number of a column whenever it has changed.

        Columns that cannot answer say why in `Turn.problem`; the others go on.

        Raises:
            BadInput: the question is empty or too long, or the conversation is.
        """
        problem = question_problem(question, self.limits)
        if problem is None and len(talk.questions) >= self.limits.turns:
            problem = f"This conversation has {self.limits.turns} questions already: start a new one."
        if problem is not None:
            raise BadInput(problem)
        question = question.strip()
        for number, column in enumerate(talk.columns):
            column.turns.append(Turn(question))
            yield number
        for number, column in enumerate(talk.columns):
            for _ in self._answer(column, column.turns[-1]):
                yield number

    def _answer(self, column: Column, turn: Turn) -> Iterator[None]:
        """Answer one turn in a thread; yields at the beginning, after every piece of text, and at the end."""
        pieces: SimpleQueue[str | None] = SimpleQueue()
        leave = threading.Event()
        made = Turn(turn.question)  # what the thread makes of it; the page's own turn changes here only
        worker = threading.Thread(target=self._work, args=(column, made, pieces, leave), daemon=True)
        turn.status = RUNNING
        yield
        worker.start()
        try:
            while (piece := pieces.get()) is not None:
                turn.text += piece
                yield
        finally:
            leave.set()
            worker.join()
        turn.text = made.text or turn.text
        turn.answer, turn.report, turn.problem, turn.status = made.answer, made.report, made.problem, made.status
        yield

    def _work(self, column: Column, made: Turn, pieces: SimpleQueue[str | None], leave: threading.Event) -> None:
        def on_text(piece: str) -> None:
            if leave.is_set():
                raise _Left
            pieces.put(piece)

        made.status = FAILED
        try:
            with self._alone, Pruning(column.method, self.model, scores=True) as pruning:
                answer = column.conversation.ask(made.question, on_text)
                made.report = pruning.last
            made.answer, made.text, made.status = answer, answer.text, DONE
        except _Left:
            made.problem = STOPPED
        except LlavaError as error:
            made.problem = str(error)
        except Exception as error:  # whatever goes wrong in one column must reach the page
            made.problem = f"This method failed on this image: {type(error).__name__}."
        finally:
            pieces.put(None)

    def _works(self, name: str) -> bool:
        try:
            Pruning(registry.create(name), self.model)
        except LlavaError:
            return False
        return True

    def _conversation(self, new_tokens: int) -> Conversation:
        return Conversation(self.model, self.processor, Sampling(max_new_tokens=new_tokens))


class _Left(Exception):
    """The visitor went away or pressed Stop."""
