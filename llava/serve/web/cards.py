"""Pieces of the page as HTML: the head of a card, its conversation, its numbers, the lines to reproduce it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from llava.serve.web.demo import DONE, FAILED, RUNNING, WAITING, Column, Talk, Turn
from llava.serve.web.settings import command_line

UNPRUNED = "unpruned"
MEGA = 1e6


def head(column: Column) -> str:
    """Return the name of a column's method and where it cuts."""
    choice = column.choice
    if choice.method == "none":
        return f'<div class="card-head"><b>{UNPRUNED}</b><span>every visual token</span></div>'
    budget = f"<i>{escape(choice.budget)}</i>" if choice.budget else ""
    stage = escape(column.method.stage)
    return f'<div class="card-head"><b>{escape(choice.method)}</b>{budget}<span>{stage}</span></div>'


def conversation(turns: Sequence[Turn]) -> str:
    """Return the questions and answers of one column."""
    return '<div class="chat">' + "".join(map(_turn, turns)) + "</div>"


def _turn(turn: Turn) -> str:
    text = escape(turn.text)
    if turn.status == WAITING:
        text = '<em class="waiting">waits for its turn</em>'
    elif turn.status == RUNNING:
        text = f'{text}<span class="cursor"></span>'
    elif turn.status == FAILED:
        text = f'{text} <em class="problem">{escape(turn.problem)}</em>'.strip()
    elif not text:
        text = "<em>(an empty answer)</em>"
    return f'<p class="q">{escape(turn.question)}</p><p class="a">{text}</p>'


def numbers(column: Column, first: Column) -> str:
    """Return the numbers of a column's latest turn, each beside that of the unpruned model."""
    turn, whole = column.turns[-1], first.turns[-1]
    if turn.status != DONE or turn.answer is None or turn.report is None:
        return '<dl class="numbers empty"></dl>'
    own = column is first
    compared = None if own or whole.status != DONE else whole
    report, rows = turn.report, []
    start = turn.answer.first_token_seconds
    if start is not None:
        rows.append(("first token", _seconds(start), _ratio(start, _first_token(compared) if compared else None)))
    speed = turn.tokens_per_second
    if speed is not None:
        rows.append(("tokens/s", f"{speed:.0f}", _ratio(speed, compared.tokens_per_second if compared else None)))
    if report.cache_bytes is not None:
        before = compared.report.cache_bytes if compared and compared.report else None
        rows.append(("cache", f"{report.cache_bytes / MEGA:.2f} MB", _ratio(report.cache_bytes, before)))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in rows)
    return f'<dl class="numbers">{items}</dl>'


def _first_token(turn: Turn) -> float | None:
    return turn.answer.first_token_seconds if turn.answer else None


def _ratio(value: float, whole: float | None) -> str:
    return f"{value / whole:.2f}×" if whole else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def layers(n_layers: int) -> str:
    """Return the slider through the layers, which the page's script carries out."""
    return (
        f'<div class="layers"><label for="layer">Tokens seen by <output id="layer-name">layer {n_layers - 1}</output>'
        f'</label><input type="range" id="layer" min="-1" max="{n_layers - 1}" value="{n_layers - 1}" step="1">'
        '<span class="scale">low<i></i>high</span>'
        '<button type="button" id="shade" aria-pressed="false">Colour by score</button></div>'
    )


def reproduce(talk: Talk, shared: Sequence[str]) -> str:
    """Return the link to this setting and the command line of every column."""
    link = escape(talk.setting.query(), quote=True)
    lines = [command_line(column.choice, talk.medium.words, talk.questions, shared) for column in talk.columns]
    items = "".join(
        f'<div class="line"><code>{escape(line)}</code><button type="button" class="copy">Copy</button></div>'
        for line in lines
    )
    note = ""
    if not talk.setting.example:
        note = (
            f"<p>The link leaves out your {talk.medium.kind}, which stays on this machine; choose it again there.</p>"
        )
    return (
        '<details class="reproduce"><summary>Reproduce this</summary>'
        f'<p><a href="{link}" id="setting-link">Link to this question, these methods and budgets</a></p>{note}'
        f"<p>The same in a terminal:</p>{items}</details>"
    )


def message(text: str) -> str:
    """Return a problem in friendly words; nothing for nothing."""
    if not text:
        return ""
    lines = "".join(f"<p>{escape(line)}</p>" for line in text.splitlines())
    return f'<div class="message" role="alert">{lines}</div>'
