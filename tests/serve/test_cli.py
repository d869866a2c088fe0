"""The chat as a person uses it: single-shot, several turns, commands, mistakes, a terminal, an interruption."""

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

import llava
from llava.serve import cli
from llava.serve.session import Conversation, Sampling
from tests.model.llava_folder import write_checkpoint

ROOT = Path(__file__).parents[2]
PRUNE = ["--method", "dart", "--keep", "2", "--set", "pivots_visual=1", "--set", "pivots_text=1"]
SHORT = ["--max-new-tokens", "6", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("chat") / "llava")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    file = tmp_path_factory.mktemp("image") / "image.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(file)
    return file


class NoTerminal(io.StringIO):
    def isatty(self):
        return False


@pytest.fixture
def talk(folder, monkeypatch, capsys):
    """Run the chat in this process with lines on standard input; return exit code, standard output and error."""

    def run(*words, lines=""):
        monkeypatch.setattr(sys, "stdin", NoTerminal(lines))
        code = cli.main(["--model-path", str(folder), *SHORT, *map(str, words)])
        return (code, *capsys.readouterr())

    return run


def reference(folder, image, text, n=6):
    """The answer of the plain model, generated without any of the chat's code."""
    model, processor = llava.load(folder)
    inputs = processor([processor.prompt(text)], [[Image.open(image)]])
    output = model.generate(**inputs, max_new_tokens=n, do_sample=False)
    return processor.decode(output[:, inputs["input_ids"].shape[1] :])[0]


def test_single_shot(talk, folder, image):
    code, out, err = talk("--image-file", image, "-p", "Is it red?", "--method", "none")
    assert code == 0
    assert out.strip() == reference(folder, image, "Is it red?")
    assert "none: visual tokens 4 -> 4" in err and "first token" in err and "6 tokens" in err


def test_single_shot_with_dart(talk, image):
    code, out, err = talk("--image-file", image, "-p", "Is it red?", *PRUNE)
    assert code == 0 and out.strip()
    assert "dart: visual tokens 4 -> 3" in err


def test_released_arguments_are_explained(talk, image):
    code, _, err = talk("--image-file", image, "-p", "Hi", "--reduction-ratio", "0.5", "--max-num-tokens", "8")
    assert code == 0 and "ratio" in err.splitlines()[0]


def test_turns_keep_their_history(talk, image):
    code, out, err = talk("--image-file", image, "--debug", *PRUNE, lines="Is it red?\n\nAnd blue?\n/exit\nnever\n")
    assert code == 0
    prompts = [line for line in err.splitlines() if line.startswith("{'prompt'")]
    assert len(prompts) == 2 and err.count("first token") == 2
    assert "USER: <image>\\nIs it red? ASSISTANT: " in prompts[1]
    assert "</s>USER: And blue? ASSISTANT:" in prompts[1] and prompts[1].count("<image>") == 1
    assert "USER" not in out


def test_later_turns_take_what_was_computed_of_the_image(talk, image):
    words = ("--image-file", image, *PRUNE)
    _, out, err = talk(*words, lines="Is it red?\nAnd blue?\n")
    assert "tokens from stored prefixes" in err.splitlines()[-1]
    _, plain, err = talk(*words, "--reuse", "0", lines="Is it red?\nAnd blue?\n")
    assert "tokens from stored prefixes" not in err
    assert out == plain
    assert talk(*words, "--reuse", "-1", lines="")[0] == 2


def test_commands(talk, image):
    lines = f"Hello\n/image {image}\nWhat?\n/clear\nAgain\n/help\n/dance\n/image nowhere.png\n/image\n"
    code, out, err = talk(*PRUNE, "--debug", lines=lines)
    assert code == 0
    prompts = [line for line in err.splitlines() if line.startswith("{'prompt'")]
    assert "</s>USER: <image>\\nWhat? ASSISTANT:" in prompts[1]
    assert "USER: Again ASSISTANT:" in prompts[2] and "Hello" not in prompts[2]
    assert "no image in the prompt" in err and "/clear" in out
    assert "Unknown command '/dance'" in err and "Unknown command '/image'" in err
    assert "Error: No image at nowhere.png" in err


def test_several_images(talk, image):
    code, _, err = talk("--image-file", image, image, "-p", "Compare.", "--method", "none")
    assert code == 0 and "visual tokens 8 -> 8" in err


def test_image_marker_typed_by_the_user_costs_only_its_line(talk):
    code, out, err = talk("--method", "none", lines="What is <image>?\nHi\n")
    assert code == 0 and "cannot contain <image>" in err and out.strip()


def test_beams_and_drawing(talk, image):
    code, out, err = talk("--image-file", image, "-p", "Hi", "--num-beams", "2", *PRUNE)
    assert code == 0 and out.strip() and "first token" not in err
    drawn = [talk("-p", "Hi", "--temperature", "1.5", "--top-p", "0.9", "--seed", seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_mistakes_are_reported_together(talk):
    code, out, err = talk("-p", " ", "--temperature=-1", "--top-p", "2", "--load-8bit", "--load-4bit", "--keepp", "3")
    assert code == 2 and out == ""
    assert err.startswith("5 mistakes:") and "Did you mean '--keep'" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image-file", "nowhere.png"], "No image at nowhere.png"),
        (["--conv-mode", "alpaca"], "Known: vicuna_v1"),
        (["--method", "drat"], "Did you mean 'dart'"),
        (["--keep", "0"], "--keep 0"),
        (["--device", "abacus"], "Unknown device 'abacus'"),
    ],
)
def test_bad_input_leaves_with_2(talk, words, message):
    code, _, err = talk("-p", "Hi", *words)
    assert code == 2 and message in err and "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA it depends on bitsandbytes")
@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="is about environments without bitsandbytes")
def test_quantised_loading_is_refused_with_the_reason(talk):
    code, _, err = talk("-p", "Hi", "--load-4bit")
    assert code == 2 and "needs the bitsandbytes package" in err


def test_interruption(talk, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "ask", interrupted)
    code, _, err = talk(lines="Hi\n")
    assert code == 130 and "Traceback" not in err


def test_answer_is_streamed_in_pieces(folder, image):
    conversation = Conversation(*llava.load(folder), Sampling(max_new_tokens=12))
    conversation.add_image(image)
    pieces = []
    answer = conversation.ask("What is it?", pieces.append)
    assert "".join(pieces).strip() == answer.text
    assert 0 < answer.first_token_seconds <= answer.seconds and answer.n_tokens <= 12


def test_too_long_a_conversation_is_refused_and_the_history_kept(folder):
    conversation = Conversation(*llava.load(folder), Sampling(max_new_tokens=5))
    conversation.ask("Hi")
    conversation.sampling = Sampling(max_new_tokens=4000)
    with pytest.raises(llava.errors.BadInput, match="2048 positions: start anew"):
        conversation.ask("More?")
    assert len(conversation.turns) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal(folder, image):
    """Typed lines, the invitation, a command, an answer, Ctrl-D; in a process of its own."""
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "llava.serve.cli", "--model-path", folder, "--image-file", image, *PRUNE, *SHORT]
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb"},
        text=True,
    )
    os.close(follower)
    os.write(leader, b"Is it red?\n/help\n\x04")
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
        os.close(leader)
    assert process.returncode == 0, err
    assert "ASSISTANT: " in out and "/image PATH" in out and "dart: visual tokens 4 -> 3" in err
