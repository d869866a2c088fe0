"""Chat in the terminal: `python -m llava.serve.cli --image-file cat.png`, LLaVA's flags plus the method's options."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from llava.commandline import MethodOptions, run, say, too_small, warn
from llava.errors import LlavaError
from llava.loadoptions import LoadOptions
from llava.model.conversation import TEMPLATES

COMMANDS = """\
/image PATH   show one more image (a file or a link) with the next question
/video PATH   show one more video with the next question
/clear        forget the conversation, its images and videos
/help         this list
/exit         leave (so do Ctrl-D and Ctrl-C)"""


def named(metavar: str, *aliases: str) -> Any:
    """Return how the help names an option's value, and the option's short forms."""
    return tyro.conf.arg(metavar=metavar, aliases=list(aliases) or None)


@dataclass
class ChatConfig:
    """Talk to a model about images, with its visual tokens pruned by a method of your choice."""

    model: LoadOptions = field(default_factory=LoadOptions)
    image_file: Annotated[tuple[str, ...], named("PATH [PATH ...]")] = ()
    """Images to talk about: files or links."""
    video_file: Annotated[tuple[str, ...], named("PATH [PATH ...]")] = ()
    """Videos to talk about: files (Qwen-VL and Video-LLaVA see many frames, LLaVA four in one picture)."""
    prompt: Annotated[str | None, named("TEXT", "-p")] = None
    """Ask this, print the answer and leave."""
    conv_mode: Annotated[str | None, named("NAME")] = None
    """Conversation template; by default the one the checkpoint was trained with."""
    temperature: float = 0.0
    """0 always takes the most likely token; above 0, tokens are drawn."""
    top_p: Annotated[float | None, named("FLOAT")] = None
    """Draw only from the most likely tokens that have this much probability together."""
    num_beams: int = 1
    """Beams of beam search; with more than 1 the answer is not streamed."""
    max_new_tokens: int = 512
    """Longest answer."""
    fast: bool = False
    """Compile the layers after the cut and the decoding steps; pays on a GPU, seldom on a CPU."""
    reuse: Annotated[int, named("MEGABYTES")] = 512
    """What may be kept of the images (features, keys and values) for the next turns; 0 keeps nothing."""
    seed: int = 0
    """For drawing tokens and for methods that draw."""
    debug: bool = False
    """Show the full prompt and the raw answer after each turn."""
    reduction: MethodOptions = field(default_factory=MethodOptions)

    def problems(self) -> list[str]:
        """Return one sentence for each value that cannot be used."""
        found = []
        if not self.temperature >= 0:
            found.append(f"--temperature {self.temperature} is negative: use 0 (greedy) or for example 0.2.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            found.append(f"--top-p {self.top_p} is outside (0, 1]: use for example 0.9.")
        found += too_small(self, num_beams=1, max_new_tokens=1) + self.model.problems()
        if self.reuse < 0:
            found.append(f"--reuse {self.reuse} is negative: give megabytes, or 0 to keep nothing.")
        if self.conv_mode not in (None, *TEMPLATES):
            found.append(f"Unknown conversation mode '{self.conv_mode}'. Known: {', '.join(TEMPLATES)}.")
        if self.prompt is not None and not self.prompt.strip():
            found.append("The prompt is empty: give a question, e.g. -p 'What is in the image?'.")
        return found


def chat(config: ChatConfig) -> int:
    """Load, prune, and answer one question or a conversation; return the exit code."""
    # Imported here so that --help and mistakes in the options do not wait for transformers.
    import torch

    from llava.model.families import family_of
    from llava.model.fast import Fast
    from llava.model.reuse import Reuse
    from llava.model.video import video_path
    from llava.serve.session import Conversation, Sampling

    config.reduction.build(seed=config.seed)  # before the model is loaded: mistakes are told at once
    sampling = Sampling(config.temperature, config.top_p, config.num_beams, config.max_new_tokens)
    conversation = Conversation(None, None, sampling)
    for source in config.image_file:
        conversation.add_image(source)  # before the model is loaded: a wrong path is told at once
    for source in config.video_file:
        video_path(source)
    conversation.model, conversation.processor = config.model.load()
    if config.conv_mode is not None:
        conversation.processor.template = TEMPLATES[config.conv_mode]
    for source in config.video_file:
        conversation.add_video(source)
    rule = family_of(conversation.model).budget_rule
    method = config.reduction.build(rule, seed=config.seed)
    for note in config.reduction.notes(rule):
        warn(note)
    torch.manual_seed(config.seed)
    options: dict[str, Any] = {"fast": Fast(say=warn)} if config.fast else {}
    if config.reuse:
        options["reuse"] = Reuse(config.reuse * 10**6)
    with method(conversation.model, **options) as pruning:
        if config.prompt is not None:
            answer_one(conversation, pruning, config.prompt, config.debug)
            return 0
        talk(conversation, pruning, config.debug)
    return 0


def talk(conversation: Any, pruning: Any, debug: bool = False) -> None:
    """Answer line after line until the input ends or says /exit; a mistake costs only its own line."""
    template = conversation.processor.template
    for line in lines(f"{template.user}: "):
        try:
            if line.startswith("/"):
                if not obey(conversation, line):
                    return
            elif line:
                answer_one(conversation, pruning, line, debug, f"{template.assistant}: ")
        except LlavaError as error:
            warn(f"Error: {error}")


def lines(invitation: str) -> Iterator[str]:
    """Yield the user's lines, stripped, until the end of the input; invite them only on a terminal."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.strip()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() editing and a history)
    say("Ask about the image; /help lists the commands.")
    while True:
        try:
            yield input(invitation).strip()
        except EOFError:
            say()
            return


def obey(conversation: Any, line: str) -> bool:
    """Carry out a /command; return False when it says to leave."""
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command in ("/exit", "/quit"):
        return False
    if command == "/clear":
        conversation.clear()
        warn("Forgot the conversation, its images and videos.")
    elif command in ("/image", "/video") and argument:
        (conversation.add_image if command == "/image" else conversation.add_video)(argument)
        warn(f"The next question shows {argument}.")
    elif command == "/help":
        say(COMMANDS)
    else:
        warn(f"Unknown command {line!r}. Commands:\n{COMMANDS}")
    return True


def answer_one(conversation: Any, pruning: Any, question: str, debug: bool = False, speaker: str = "") -> None:
    """Stream the answer to standard output, then one line of accounting and timing to standard error."""
    if not sys.stdin.isatty():
        speaker = ""
    write(speaker)
    try:
        answer = conversation.ask(question, write)
    except KeyboardInterrupt:
        say()  # what was streamed keeps its line
        raise
    say(answer.text if conversation.sampling.num_beams > 1 else "")
    report = pruning.last
    accounting = f"{report.line()}; " if report is not None else ""
    warn(f"[{accounting}{answer.line()}]")
    if debug:
        warn(f"{{'prompt': {answer.prompt!r}, 'outputs': {answer.text!r}}}")


def write(text: str) -> None:
    """Write a piece of a line at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Run the chat; the exit code is 0 done, 1 failed, 2 bad input, 130 interrupted."""
    return run(chat, ChatConfig, argv, prog="llava-chat")


if __name__ == "__main__":
    sys.exit(main())
