"""The demo without a page: settings in, one column per method out, answers streaming; knows no Gradio."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from PIL import Image

from llava.errors import BadInput, ConfigurationError, LlavaError
from llava.model.families import family_of
from llava.model.pruning import Pruning
from llava.model.report import Report
from llava.reduction import registry
from llava.report.overlay_boards import Board
from llava.serve.session import Answer, Conversation, Interrupted, Sampling
from llava.serve.web.media import IMAGE, VIDEO, Medium, drawn_boards, frame_boards, open_film, open_image, takes_videos
from llava.serve.web.settings import NONE, Choice, Limits, Setting, choice_problems, question_problem

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
STOPPED = "Stopped."
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
    """One conversation about one image or video, in several columns; the first is the unpruned model.

    Args:
        setting: the latest question and the methods.
        medium: what it is about.
        boards: what the vision tower is shown of it, frame by frame.
        whole: the same before a picture of several frames was cut.
        leave: set when nobody wants the answer any more that is on its way.
    """

    setting: Setting
    medium: Medium
    columns: list[Column]
    boards: list[Board]
    whole: list[Board]
    leave: threading.Event = field(default_factory=threading.Event)

    @property
    def broken(self) -> bool:
        """Whether the latest question was not put to all columns to the end."""
        latest = [column.turns[-1] for column in self.columns if column.turns]
        return any(turn.status in (WAITING, RUNNING) or turn.problem == STOPPED for turn in latest)

    def goes_on(self, choices: Sequence[Choice], kind: str, path: str | None) -> bool:
        """Whether a further question belongs here, rather than to a new conversation."""
        same = (self.medium.kind, self.medium.path) == (kind, path)
        return same and not self.broken and self.setting.choices == tuple(choices)

    def stop(self) -> list[int]:
        """End the answer that is on its way, at the latest after its next token; returns the columns without one."""
        self.leave.set()
        ended = []
        for number, column in enumerate(self.columns):
            if column.turns and column.turns[-1].status in (WAITING, RUNNING):
                column.turns[-1].status, column.turns[-1].problem = FAILED, STOPPED
                ended.append(number)
        return ended

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

    @property
    def kinds(self) -> tuple[str, ...]:
        """What conversations can be about: images, and videos if the model takes them."""
        return (IMAGE, VIDEO) if takes_videos(self.processor) else (IMAGE,)

    def open(self, kind: str, path: str | Path | None, name: str = "") -> Medium:
        """Return the image or video of an uploaded file.

        Args:
            kind: IMAGE or VIDEO.
            path: the file; None if nothing was uploaded.
            name: what to call it in a command line; by default its own name.

        Raises:
            BadInput: there is none, it is too large or too long, or it is of another kind.
        """
        if path is not None and not name:
            name = Path(path).name
        if kind == VIDEO:
            return open_film(path, name, self.limits, self.processor)
        return open_image(path, name, self.limits)

    def begin(self, setting: Setting, medium: Medium) -> Talk:
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
            medium.show(conversation)
            columns.append(Column(choice, choice.build(self.family.budget_rule, self.limits), conversation))
        whole = drawn_boards(self.model, self.processor, medium)
        return Talk(setting, medium, columns, frame_boards(whole, medium), whole)

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
        talk.leave = leave = threading.Event()
        for number, column in enumerate(talk.columns):
            column.turns.append(Turn(question))
            yield number
        try:
            for number, column in enumerate(talk.columns):
                if not leave.is_set():
                    for _ in self._answer(column, column.turns[-1], leave):
                        yield number
        except GeneratorExit:  # the visitor went away; nobody waits for the thread, which ends after its next token
            leave.set()
            raise

    def _answer(self, column: Column, turn: Turn, leave: threading.Event) -> Iterator[None]:
        """Answer one turn in a thread; yields at the beginning, after every piece of text, and at the end."""
        pieces: SimpleQueue[str | None] = SimpleQueue()
        made = Turn(turn.question)  # what the thread makes of it; the page's own turn changes here only
        worker = threading.Thread(target=self._work, args=(column, made, pieces, leave), daemon=True)
        turn.status = RUNNING
        yield
        worker.start()
        while (piece := pieces.get()) is not None:
            turn.text += piece
            yield
        if turn.problem == STOPPED:  # said already, whatever was ready in between
            return
        turn.text = made.text or turn.text
        turn.answer, turn.report, turn.problem, turn.status = made.answer, made.report, made.problem, made.status
        yield

    def _work(self, column: Column, made: Turn, pieces: SimpleQueue[str | None], leave: threading.Event) -> None:
        made.status = FAILED
        try:
            with self._alone, Pruning(column.method, self.model, scores=True) as pruning:
                answer = column.conversation.ask(made.question, pieces.put, lambda: not leave.is_set())
                made.report = pruning.last
            made.answer, made.text, made.status = answer, answer.text, DONE
        except Interrupted:
            made.problem = STOPPED
        except LlavaError as error:
            made.problem = str(error)
        except Exception as error:  # whatever goes wrong in one column must reach the page
            made.problem = f"This method failed here: {type(error).__name__}."
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
