"""Video answers judged by a language model behind an OpenAI-compatible endpoint, and the official formulas.

Source: Video-ChatGPT's `evaluate_activitynet_qa.py` as Video-LLaVA uses it (one file per question, then accuracy and
mean score). The wording of the messages is ours; it asks for the same dictionary with `pred` and `score`.
"""

from __future__ import annotations

import ast
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import BadData, BadInput, LlavaError, first_line
from llava.eval.benchmarks import files
from llava.eval.benchmarks.base import Metric, Row, Score
from llava.eval.benchmarks.video_qa import VideoQa

SYSTEM = (
    "You grade answers to questions about videos. Compare the predicted answer with the correct answer and decide "
    "whether they mean the same. Synonyms and paraphrases count as the same; the wording need not match."
)
REQUEST = (
    "Question: {question}\nCorrect Answer: {gold}\nPredicted Answer: {prediction}\n\n"
    "Reply only with a Python dictionary: 'pred' is the string 'yes' or 'no' (do they mean the same?), 'score' is a "
    "whole number from 0 to 5 (5: the meanings match best). No other text. Example: {{'pred': 'yes', 'score': 4}}"
)
FATAL = frozenset({400, 401, 403, 404, 405})
"""Answers of the endpoint that asking again does not change."""
LONGEST_PAUSE = 60.0

Reply = dict[str, Any]
"""`pred` (yes or no, as said) and `score` (a number), as a judge returned them."""


class Unusable(LlavaError):
    """One reply of the judge that cannot be read; the question is asked again."""


@dataclass(frozen=True)
class Judge:
    """An OpenAI-compatible chat endpoint.

    Args:
        endpoint: base URL up to `/v1`; `/chat/completions` is added.
        model: name of the model there; the literature's numbers are from gpt-3.5-turbo.
        key: bearer token, or None for servers that need none.
        timeout: seconds until a request is given up.
        attempts: requests for one question before it is left out.
        pause: seconds before the second attempt; doubled for each further one.
    """

    endpoint: str
    model: str = "gpt-3.5-turbo"
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    attempts: int = 5
    pause: float = 1.0

    def __post_init__(self) -> None:
        if urllib.parse.urlparse(self.endpoint).scheme not in ("http", "https"):
            raise BadInput(f"The endpoint {self.endpoint!r} is no http(s) address: give e.g. http://localhost:8000/v1.")

    def ask(self, question: str, gold: str, prediction: str) -> Reply:
        """Return the judge's reply.

        Raises:
            BadInput: the endpoint refuses such requests (wrong address, key or model).
            LlavaError: no usable reply after all attempts.
        """
        text = REQUEST.format(question=question, gold=gold, prediction=prediction)
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        why: Exception | None = None
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(min(LONGEST_PAUSE, self.pause * 2 ** (attempt - 1)))
            try:
                return parse_reply(self._post({"model": self.model, "messages": messages}))
            except urllib.error.HTTPError as error:
                if error.code in FATAL:
                    raise BadInput(
                        f"{self.endpoint} refuses the request ({error.code} {error.reason}): check --endpoint, "
                        f"--judge-model and --api-key-file."
                    ) from error
                why = error
            except (OSError, ValueError, KeyError, IndexError, TypeError, Unusable) as error:
                why = error
        said = first_line(why) if why else "nothing was tried"
        raise LlavaError(f"no usable reply after {self.attempts} attempts ({said})") from why

    def _post(self, body: Mapping[str, Any]) -> str:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        address = f"{self.endpoint.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]


def parse_reply(text: str) -> Reply:
    """Return `pred` and `score` of a reply; words around the dictionary are ignored.

    Raises:
        Unusable: there is no such dictionary, or `pred` says neither yes nor no.
    """
    start, end = text.find("{"), text.rfind("}")
    try:
        content = ast.literal_eval(text[start : end + 1])
        reply = {"pred": str(content["pred"]), "score": content["score"]}
        int(reply["score"])
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise Unusable(f"the reply {text!r} is no dictionary with pred and score") from error
    if "yes" not in reply["pred"].lower() and "no" not in reply["pred"].lower():
        raise Unusable(f"the reply {text!r} says neither yes nor no")
    return reply


def reply_path(folder: Path, key: str) -> Path:
    """Return the file of one question's reply."""
    return folder / f"{urllib.parse.quote(key, safe=' ')}.json"


def judge_answers(
    benchmark: VideoQa,
    root: Path,
    rows: Sequence[Row],
    folder: Path,
    judge: Judge,
    workers: int = 4,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Ask the judge about every answer that has no reply yet; write each reply to a file of its own.

    Args:
        benchmark, root: whose questions and gold answers.
        rows: answers.
        folder: where the replies go; those to the same predictions are kept.
        judge: the endpoint.
        workers: requests at a time.
        say: called with progress sentences.

    Raises:
        BadInput: the endpoint refuses the requests.
        LlavaError: some questions have no reply; the same command asks for these alone.
    """
    answers, gold = benchmark.matched(root, rows)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [key for key, row in answers.items() if not _judged(reply_path(folder, key), row["text"])]
    say(f"{len(answers) - len(waiting)} of {len(answers)} answers are judged already; asking about {len(waiting)}.")
    failed: list[str] = []
    refused = threading.Event()

    def one(key: str) -> None:
        if refused.is_set():
            return
        asked = {"q": answers[key].get("prompt", ""), "a": gold[key], "pred": answers[key]["text"]}
        try:
            reply = judge.ask(asked["q"], asked["a"], asked["pred"])
        except BadInput:
            refused.set()
            raise
        except LlavaError as error:
            failed.append(f"{key}: {error}")
            return
        files.write_json(reply_path(folder, key), [reply, asked])

    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        for done in [pool.submit(one, key) for key in waiting]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        heading = f"{len(failed)} answers could not be judged; the same command asks for these alone:"
        raise LlavaError("\n".join([heading, *files.shortened(sorted(failed))]))


def _judged(path: Path, prediction: str) -> bool:
    if not path.exists():
        return False
    _, asked = _record(path, files.read_json(path, list))
    return asked.get("pred") == prediction


def _record(path: Path, content: Any) -> tuple[Reply, Mapping[str, Any]]:
    try:
        reply = {"pred": str(content[0]["pred"]), "score": content[0]["score"]}
        int(reply["score"])
        return reply, content[1] if len(content) > 1 else {}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadData(
            f"{path} holds no reply [{{'pred': ..., 'score': ...}}, ...]: delete it and judge again."
        ) from error


def read_replies(path: Path) -> dict[str, tuple[Reply, Mapping[str, Any]]]:
    """Return question id -> (reply, what was asked) of a folder of replies or of a combined `results.json`.

    Raises:
        MissingData: there is no such file or folder.
        BadData: a file is not a reply.
    """
    files.require([path], "Make it with: python -m llava.eval judge BENCHMARK --answers-file FILE --endpoint URL")
    if path.is_dir():
        names = {urllib.parse.unquote(file.stem): file for file in sorted(path.glob("*.json"))}
        return {key: _record(file, files.read_json(file, list)) for key, file in names.items()}
    return {str(key): _record(path, content) for key, content in files.read_json(path, dict).items()}


def official_numbers(replies: Sequence[Reply]) -> tuple[float | None, float | None]:
    """Return (accuracy in percent, mean score) by the official formulas; scores are cut to whole numbers."""
    said = [reply["pred"].lower() for reply in replies]
    yes = sum("yes" in word for word in said)
    no = sum("yes" not in word and "no" in word for word in said)
    accuracy = 100 * yes / (yes + no) if yes + no else None
    return accuracy, sum(int(reply["score"]) for reply in replies) / len(replies) if replies else None


def score(benchmark: VideoQa, root: Path, rows: Sequence[Row], replies_path: Path) -> Score:
    """Return the judged accuracy and score of answers, with the local metrics beside them; no network is used.

    Raises:
        BadData: replies are malformed, or were given to other predictions.
    """
    local = benchmark.score(root, rows)
    answers, _ = benchmark.matched(root, rows)
    replies = read_replies(replies_path)
    problems = files.Problems(f"The replies in {replies_path} do not fit the answers")
    for key, row in answers.items():
        if key not in replies:
            problems.add(f"question {key!r} has no reply")
        elif replies[key][1].get("pred", row["text"]) != row["text"]:
            problems.add(f"question {key!r}: the reply is to another prediction")
    problems.raise_if_any(BadData, "Judge these answers first: python -m llava.eval judge --help")
    accuracy, mean = official_numbers([replies[key][0] for key in answers])
    headline = Metric("gpt_accuracy", accuracy, "%", samples=len(answers))
    metrics = (headline, Metric("gpt_score", mean, samples=len(answers)), *local.metrics)
    lines = (f"Accuracy (GPT): {accuracy or 0:.2f}%", f"Average score (GPT): {mean or 0:.2f}", *local.printout)
    return Score(headline, metrics, local.samples, local.expected, lines, local.notes, local.missing)
