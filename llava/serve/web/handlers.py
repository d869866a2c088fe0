"""What happens when something on the page is pressed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web import cards
from llava.serve.web.demo import RUNNING, Column, Demo, Talk
from llava.serve.web.examples import Example
from llava.serve.web.media import VIDEO
from llava.serve.web.picture import Fate, caption, drawing, fate
from llava.serve.web.settings import Choice, Setting

BETWEEN_UPDATES = 0.08  # seconds; a page gains nothing from more while an answer streams

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Card:
    """One column of the comparison: its box, name and picture (top), answers and numbers (bottom)."""

    box: Any
    top: Any
    bottom: Any


@dataclass(frozen=True)
class Parts:
    """What can be filled in, and where results go.

    Args:
        tabs, kind: which of image and video is shown, and asked about.
        image, video: the boxes for uploads.
        image_example, video_example: the name of the example in each box; empty for an upload.
    """

    tabs: Any
    kind: Any
    image: Any
    video: Any
    image_example: Any
    video_example: Any
    question: Any
    methods: Sequence[Any]
    budgets: Sequence[Any]
    options: Sequence[Any]
    talk: Any
    message: Any
    layers: Any
    reproduce: Any
    empty: Any
    cards: Sequence[Card]

    @property
    def typed(self) -> list[Any]:
        """Inputs of a question, in the order `Handlers.ask` takes them."""
        media = [self.kind, self.image, self.video, self.image_example, self.video_example]
        return [*media, self.question, self.talk, *self.methods, *self.budgets, *self.options]

    @property
    def results(self) -> list[Any]:
        """Outputs of a question."""
        pieces = [piece for card in self.cards for piece in (card.box, card.top, card.bottom)]
        return [self.question, self.talk, self.message, self.layers, self.reproduce, self.empty, *pieces]

    @property
    def picked(self) -> list[Any]:
        """What an example fills in."""
        return [
            self.tabs,
            self.kind,
            self.image,
            self.video,
            self.image_example,
            self.video_example,
            self.question,
        ]

    @property
    def filled(self) -> list[Any]:
        """What a link fills in."""
        return [*self.picked, *self.methods, *self.budgets, *self.options]


@dataclass(frozen=True)
class Handlers:
    """The functions behind the page.

    Args:
        demo: the model.
        examples: images and videos to pick from, by name.
        defaults: what is filled in where a link says nothing.
        shared: words of the command line that say which model runs here.
        parts: what is on the page.
    """

    demo: Demo
    examples: Mapping[str, Example]
    defaults: Setting
    shared: Sequence[str]
    parts: Parts

    def ask(
        self,
        kind: str,
        image: str | None,
        video: str | None,
        image_example: str,
        video_example: str,
        question: str,
        talk: Talk | None,
        *typed: str,
    ) -> Iterator[Updates]:
        """Answer with every method, one after the other; yields what has changed on the page."""
        path, name = (video, video_example) if kind == VIDEO else (image, image_example)
        try:
            talk = self._talk(kind, path, name, question or "", talk, self._choices(typed))
            changes = self.demo.ask(talk, question or "")
            for number in changes:
                if number == len(talk.columns) - 1:  # the question stands in all columns
                    break
        except LlavaError as error:
            yield {self.parts.message: cards.message(str(error))}
            return
        yield self._begun(talk)
        shown_at = 0.0
        for number in changes:
            turn = talk.columns[number].turns[-1]
            if turn.status == RUNNING and turn.text and time.monotonic() - shown_at < BETWEEN_UPDATES:
                continue
            shown_at = time.monotonic()
            yield self._column(talk, number)
        yield {self.parts.reproduce: cards.reproduce(talk, self.shared)}

    def stop(self, talk: Talk | None) -> Updates:
        """End the answer, and say in every column that has none yet that there will be none."""
        updates: Updates = {self.parts.message: ""}
        if talk is not None:
            for number in talk.stop():
                updates |= self._column(talk, number)
        return updates

    def clear(self, talk: Talk | None) -> Updates:
        """Forget the conversation, and end the answer that is on its way."""
        parts = self.parts
        if talk is not None:
            talk.stop()
        return {
            parts.talk: None,
            parts.message: "",
            parts.reproduce: "",
            parts.layers: gr.update(visible=False),
            parts.empty: gr.update(visible=True),
            **{card.box: gr.update(visible=False) for card in parts.cards},
        }

    def pick(self, number: int) -> Updates:
        """Take an example: its image or video, and its question."""
        name = list(self.examples)[number]
        return {**self._example(name), self.parts.question: self.examples[name].question}

    def fill(self, request: gr.Request) -> Updates:
        """Fill in what the link says that opened the page."""
        limits, parts, given = self.demo.limits, self.parts, dict(request.query_params)
        setting = Setting.from_query({name: str(value) for name, value in given.items()}, self.examples, limits)
        if not (setting.question or setting.choices or setting.example):
            return {parts.question: gr.skip()}
        updates: Updates = {}
        if setting.example:
            updates |= self._example(setting.example)
        if setting.question:
            updates[parts.question] = setting.question
        if setting.choices:
            choices = (*setting.choices, *[Choice("")] * limits.methods)
            for number in range(limits.methods):
                choice = choices[number]
                updates[parts.methods[number]] = choice.method
                updates[parts.budgets[number]] = choice.budget
                updates[parts.options[number]] = choice.options
        return updates

    # ------------------------------------------------------------------------------------------------------- helpers

    def _choices(self, typed: Sequence[str]) -> tuple[Choice, ...]:
        n = self.demo.limits.methods
        rows = zip(typed[:n], typed[n : 2 * n], typed[2 * n :], strict=True)
        return tuple(Choice(*((text or "").strip() for text in row)) for row in rows if (row[0] or "").strip())

    def _example(self, name: str) -> Updates:
        parts, example = self.parts, self.examples[name]
        box, held = (parts.video, parts.video_example) if example.kind == VIDEO else (parts.image, parts.image_example)
        return {
            parts.tabs: gr.Tabs(selected=example.kind),
            parts.kind: example.kind,
            box: str(example.file),
            held: name,
        }

    def _talk(
        self, kind: str, path: str | None, name: str, question: str, talk: Talk | None, choices: tuple[Choice, ...]
    ) -> Talk:
        """The conversation a question belongs to: the one so far, or a new one if something was changed in between.

        The same question once more, with nothing changed, also begins anew.
        """
        example = self.examples.get(name or "")
        file = str(example.file) if example else path
        again = talk is not None and question.strip() == talk.questions[-1]
        if talk is not None and not again and talk.goes_on(choices, kind, file):
            talk.setting = replace(talk.setting, question=question.strip())
            return talk
        medium = self.demo.open(kind, file, example.shown if example else "")
        return self.demo.begin(Setting(question.strip(), choices, name or ""), medium)

    def _begun(self, talk: Talk) -> Updates:
        parts, updates = self.parts, Updates()
        for number, card in enumerate(parts.cards):
            updates[card.box] = gr.update(visible=number < len(talk.columns))
        for number, column in enumerate(talk.columns):
            updates[parts.cards[number].top] = _top(talk, column, None)
            updates[parts.cards[number].bottom] = _bottom(talk, column)
        more: Updates = {
            parts.talk: talk,
            parts.message: "",
            parts.reproduce: "",
            parts.layers: gr.update(visible=True),
            parts.empty: gr.update(visible=False),
        }
        return {**updates, **more}

    def _column(self, talk: Talk, number: int) -> Updates:
        column, card = talk.columns[number], self.parts.cards[number]
        report = column.turns[-1].report
        if report is None:
            return {card.bottom: _bottom(talk, column)}
        known = fate(report)
        return {card.top: _top(talk, column, known), card.bottom: _bottom(talk, column)}


def _top(talk: Talk, column: Column, known: Fate | None) -> str:
    resize = column.method.resized if getattr(column.method, "resizes", False) else None
    if resize is not None and known is not None:
        return cards.head(column) + drawing(talk.whole, known, resize) + caption(talk.whole, known, smaller=True)
    return cards.head(column) + drawing(talk.boards, known) + caption(talk.boards, known)


def _bottom(talk: Talk, column: Column) -> str:
    return cards.numbers(column, talk.columns[0]) + cards.conversation(column.turns)
