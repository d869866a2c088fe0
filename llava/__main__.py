"""`python -m llava`: the commands of this package, one line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llava.commandline import BAD_INPUT, DONE, did_you_mean, say, warn

COMMANDS = {
    "serve.cli": "talk to a model about images and videos in the terminal",
    "serve.web": "compare in the browser what methods keep and answer",
    "serve.vllm": "vLLM's server with fewer visual tokens per image",
    "eval": "answer and score benchmarks; score answers that are there",
    "data": "which benchmark data is there; bring downloads into place",
    "methods": "the methods, their options and presets",
    "report": "the paper's tables, figures and claims; summaries, pictures",
    "bench": "seconds and bytes: prefill, decoding, memory, whole runs",
    "analysis": "what the kept tokens are: overlap, position, theory",
    "train": "train and ship the embedded llava-nano",
}


def main(argv: Sequence[str] | None = None) -> int:
    """List the commands; words are answered with the command that was probably meant. Return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in ("-h", "--help"):
        meant = [name for name in COMMANDS if words[0] in (name, name.rpartition(".")[2])]
        hint = f" Type `python -m llava.{meant[0]}`." if meant else did_you_mean(words[0], list(COMMANDS))
        warn(f"`python -m llava` only lists the commands.{hint}")
        return BAD_INPUT
    for name, sentence in COMMANDS.items():
        say(f"python -m llava.{name:10s} {sentence}")
    say("Add --help to any of them.")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
