"""Answers and questions brought together: by id, or by id and text in the order of the question file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Mapping, Sequence

from llava.errors import BadData
from llava.eval.benchmarks import files
from llava.eval.benchmarks.records import Question, Row

WRONG_FILE = "Is this the answers file of this benchmark, and --data the set it was made with?"


def repeated(keys: Sequence[Hashable]) -> list[str]:
    """Return one line for every key that stands more than once."""
    counts = Counter(keys)
    return [f"{key!r}: {count} times" for key, count in counts.items() if count > 1]


def answers_by_id(
    rows: Sequence[Row], known: Container[str], what: str, texts: Mapping[str, str] | None = None
) -> dict[str, Row]:
    """Return question id (as text) -> answer, for scorers that look answers up.

    Args:
        rows: answers.
        known: ids of the questions, as text.
        what: benchmark and file, for the message.
        texts: question by id, where ids are plain numbers that answers to another benchmark may have too.

    Raises:
        BadData: an answer belongs to no question or a question is answered more than once (all are listed), or none of
            the stored prompts is the text of its question.
    """
    found: dict[str, Row] = {}
    problems = files.Problems(f"The answers do not fit {what}")
    for number, row in enumerate(rows, start=1):
        key = str(row["question_id"])
        if key not in known:
            problems.add(f"answer {number}: no question has the id {row['question_id']!r}")
        elif key in found:
            problems.add(f"answer {number}: question {row['question_id']!r} is answered more than once")
        else:
            found[key] = row
    problems.raise_if_any(BadData, WRONG_FILE)
    if texts and found and all("prompt" in row and row["prompt"] != texts[key] for key, row in found.items()):
        key, row = next(iter(found.items()))
        raise BadData(
            f"The answers do not fit {what}: none was given to the text of its question, e.g. {key!r} asks "
            f"{texts[key]!r}, the answers file says {row['prompt']!r}. {WRONG_FILE}"
        )
    return found


def unanswered(questions: Sequence[Question], positions: Sequence[int]) -> tuple[str, ...]:
    """Return the ids of the questions whose positions are not among those of the answers."""
    given = set(positions)
    return tuple(str(question.id) for position, question in enumerate(questions) if position not in given)


def percent(values: Sequence[float | bool]) -> float | None:
    """Return 100 times the mean, or None of nothing."""
    return 100 * sum(values) / len(values) if values else None


def match_rows(rows: Sequence[Row], questions: Sequence[Question], what: str, ordered: bool = True) -> list[int]:
    """Return for every row the position of its question; see `Benchmark.match`."""
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for position, question in enumerate(questions):
        waiting[question.id].append(position)
    unique = {key for key, positions in waiting.items() if len(positions) == 1}
    found: list[int] = []
    problems = files.Problems(f"The answers do not fit {what}")
    for number, row in enumerate(rows, start=1):
        key = row["question_id"]
        candidates = waiting.get(key)
        if candidates is None:
            problems.add(f"answer {number}: no question has the id {key!r}")
            continue
        same_text = [p for p in candidates if key in unique or questions[p].text == row.get("prompt")]
        if not same_text:
            why = "is answered more than once" if key in unique or not candidates else "has another text"
            problems.add(f"answer {number}: question {key!r} {why}")
            continue
        candidates.remove(same_text[0])
        found.append(same_text[0])
    problems.raise_if_any(BadData, WRONG_FILE)
    if not ordered:
        return found
    for number, (before, after) in enumerate(zip(found, found[1:], strict=False), start=2):
        if after < before:
            raise BadData(
                f"Answer {number} (question {rows[number - 1]['question_id']!r}) is out of order. The official scorers "
                f"pair answers with labels by position: sort the answers in the order of the question file."
            )
    return found
