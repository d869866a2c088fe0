"""The result file of a measurement: one form for all commands, written whole or not at all, marked when incomplete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.commandline import say
from llava.errors import BadData
from llava.eval import results

if TYPE_CHECKING:
    from llava.bench.trials import Measured  # brings torch along

FORMAT = 1
"""Raised when a field changes its meaning."""


def content(
    bench: str,
    options: Any,
    environment: Mapping[str, Any],
    subject: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    complete: bool = True,
    left_out: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the content of a result file.

    Args:
        bench: name of the command.
        options: its dataclass; the output path is left out.
        environment: where and with what (`subject.environment`).
        subject: model and prompts.
        rows: what was measured.
        complete: False when Ctrl-C came before the end.
        left_out: method -> why it could not be measured.
        more: further entries.
    """
    return {
        "format": FORMAT,
        "bench": bench,
        "complete": complete,
        "options": flat(options),
        "environment": dict(environment),
        "subject": dict(subject),
        "left_out": dict(left_out or {}),
        "rows": list(rows),
        **more,
    }


def flat(options: Any) -> dict[str, Any]:
    """Return the options of a command by the names of their flags, as plain JSON."""
    found: dict[str, Any] = {}
    for name, value in asdict(options).items():
        found.update(value if isinstance(value, dict) else {name: value})
    return {name: value for name, value in found.items() if name not in ("output", "restart")}


def finish(result: Mapping[str, Any], output: Path | None) -> None:
    """Write the result where it is wanted, and say so.

    Raises:
        KeyboardInterrupt: it is incomplete, since Ctrl-C ended the measurement; the message says what is kept.
    """
    if output is not None:
        results.write(output, result)
        say(f"Raw result: {output}")
    if not result["complete"]:
        kept = f"What was measured is in {output}, marked as incomplete." if output else "Nothing is kept: no --output."
        raise KeyboardInterrupt(f"Interrupted. {kept}")


def publish(
    bench: str,
    options: Any,
    environment: Mapping[str, Any],
    subject: Mapping[str, Any],
    measured: Measured,
    heading: str,
    lines: Sequence[str],
) -> None:
    """Show what a command measured, then write it; the output path is that of `options.times`.

    Args:
        heading, lines: what the screen shows.
        others: as for `content`.

    Raises:
        KeyboardInterrupt: as `finish` does.
    """
    for line in (heading, *lines):
        say(line)
    left_out, complete = measured.left_out, measured.complete
    result = content(bench, options, environment, subject, measured.rows, complete=complete, left_out=left_out)
    finish(result, options.times.output)


def read(path: Path, bench: str) -> dict[str, Any]:
    """Return the content of a result file of one command.

    Raises:
        BadData: it cannot be read, or is no result of this command in this format.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadData(f"{path} cannot be read ({error}): give another file.") from error
    if not isinstance(found, dict) or (found.get("bench"), found.get("format")) != (bench, FORMAT):
        raise BadData(
            f"{path} is no result of `bench {bench}` in format {FORMAT}: give another file, or make it anew with "
            f"`python -m llava.bench {bench} --output {path} --restart`."
        )
    return found
