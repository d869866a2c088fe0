"""Code blocks and commands of Markdown pages, and what is wrong with a command according to its own parser.

Nothing is run here: a command's words go through the options of its configuration class, its method is built, the
scripts it names must be there. Words in capitals (`FOLDER`, `NAME`) stand for something of the reader's.
"""

import contextlib
import importlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import tyro

from llava.analysis import __main__ as analysis
from llava.bench import __main__ as bench
from llava.commandline import MethodOptions, check_words, flags_of
from llava.errors import ConfigurationError
from llava.report import __main__ as report

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", ROOT / "playground/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
"""Name -> text of every page with code blocks."""
SHELLS = ("bash", "")  # a block without a language is read for commands too
CONFIGS = {  # command -> where the dataclass of its options stands
    "llava.serve.cli": "llava.serve.cli:ChatConfig",
    "llava.serve.vllm": "llava.serve.vllm.__main__:ServeConfig",
    "llava.serve.web": "llava.serve.web.__main__:WebConfig",
    "llava.eval": "llava.eval.__main__:RunConfig",
    "llava.eval score": "llava.eval.scoring:ScoreConfig",
    "llava.eval validate": "llava.eval.scoring:ValidateConfig",
    "llava.eval judge": "llava.eval.scoring:JudgeConfig",
    "llava.data": "llava.data.__main__:StatusConfig",
    "llava.data convert": "llava.data.__main__:ConvertConfig",
    "llava.methods": "llava.methods:ListConfig",
    **{f"llava.train {name.lower()}": f"llava.train.__main__:{name}" for name in ("Run", "Mini", "Tokenizer", "Grow")},
    **{f"llava.report {name}": f"{cls.__module__}:{cls.__name__}" for name, (_, cls) in report.COMMANDS.items()},
    **{f"llava.analysis {name}": f"llava.analysis.{name}:{name.title()}" for name in analysis.COMMANDS},
    **{f"llava.bench {name}": ":".join(target.split(":")[::2]) for name, target in bench.COMMANDS.items()},
}
WITH_COMMANDS = ("llava.report", "llava.analysis", "llava.bench", "llava.train")  # useless without a further word
EXTRAS = re.compile(r"(?:llava-dart|\.)(?:\[([\w,-]+)\])?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: language, file name (`title="..."`) or "", text, line of the page it begins in."""

    language: str
    title: str
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """Commands of a shell block: continued lines joined; comments and columns beside them left out."""
        if self.language not in SHELLS:
            return []
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        if not self.language:
            lines = [re.split(r" {3,}", line)[0] for line in lines if line.startswith("python -m ")]
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in their order."""
    found = []
    for match in re.finditer(r"^```(\w*)([^\n]*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        title = re.search(r'title="([^"]+)"', match[2])
        found.append(Block(match[1], title[1] if title else "", match[3], page.count("\n", 0, match.start()) + 2))
    return found


def inline_commands(page: str) -> list[str]:
    """Commands in running text: `python -m ...` between backticks, also over two lines."""
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(text.split()) for text in re.findall(r"`((?:[A-Z]+=\S+ )*(?:python -m|bash) [^`]+)`", prose)]


def command_problems(command: str) -> list[str]:
    """Return what is wrong with one command; nothing is run."""
    words = [word for word in shlex.split(command, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[0] == "bash":
        return [] if (ROOT / words[1]).is_file() else [f"no such script: {words[1]}"]
    if words[:2] == ["accelerate", "launch"]:
        words = ["python", *words[words.index("-m") :]]
    if words[:3] == ["python", "-m", "pytest"]:
        paths = [word for word in words if word.startswith("tests/")]
        return [f"no such tests: {path}" for path in paths if not (ROOT / path).exists()]
    if words[:2] == ["python", "-m"]:
        return _module_problems(words[2:])
    if words[:2] == ["pip", "install"]:
        return [problem for word in words[2:] if not word.startswith("-") for problem in _extra_problems(word)]
    return [f"{words[0]!r} is not a program that pages may name"]


def _module_problems(words: list[str]) -> list[str]:
    words = words[: words.index("--")] if "--" in words else words  # what follows is another program's
    longest = " ".join(words[:2])
    name = longest if longest in CONFIGS else words[0]
    if name in WITH_COMMANDS and (len(words) == 1 or words[1].isupper()):
        return []
    if name not in CONFIGS:
        return [f"no such command: python -m {longest}"]
    module, _, config_name = CONFIGS[name].partition(":")
    config = getattr(importlib.import_module(module), config_name)
    own = words[len(name.split()) :]
    if own == ["--help"]:
        return []
    good, problems = check_words(own, flags_of(config))
    if problems or any(word.isupper() and "=" not in word for word in own):
        return problems
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            made = tyro.cli(config, args=good, config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes))
    except SystemExit:
        return [told.getvalue()]
    return [sentence for options in _methods_of(made) for sentence in _method_problems(options)]


def _methods_of(config: object) -> list[MethodOptions]:
    options = [value for value in vars(config).values() if isinstance(value, MethodOptions)]
    return [one for given in options if given.method_file is None for one in given.variants()]


def _method_problems(options: MethodOptions) -> list[str]:
    try:
        options.build()
    except ConfigurationError as error:
        return list(error.problems)
    return []


def _extra_problems(word: str) -> list[str]:
    match = EXTRAS.fullmatch(word)
    if not match or not match[1]:
        return []
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return [f"no extra {extra!r} in pyproject.toml" for extra in match[1].split(",") if extra not in known]
