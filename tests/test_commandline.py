"""The shared command line: all mistakes together, did you mean, exit codes, no traceback."""

import errno
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import tyro

from llava import commandline
from llava.commandline import MethodOptions, flags_of
from llava.errors import BadInput, ConfigurationError, LlavaError
from llava.reduction import DART, Random


@dataclass(frozen=True)
class Config:
    """A command."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    reduction: MethodOptions = field(default_factory=MethodOptions)
    model_path: str | None = None
    image_file: tuple[str, ...] = ()
    batch_size: int = 8
    temperature: float = 0.0
    compare: bool = False

    def problems(self):
        return ["the batch is too small"] if self.batch_size < 1 else []


def run(*words, main=lambda config: None):
    return commandline.run(main, Config, words, prog="command")


def parsed(*words):
    seen = []
    assert run(*words, main=seen.append) == 0
    return seen[0]


def test_hyphens_underscores_equals_and_lists():
    words = ["pope", "mme", "--model-path", "a/b", "--batch_size=3", "--image-file", "x.jpg", "y.jpg", "--compare"]
    config = parsed(*words, "--set", "a=1", "--set", "b=-2")
    assert config.names == ("pope", "mme") and config.model_path == "a/b" and config.batch_size == 3
    assert config.image_file == ("x.jpg", "y.jpg") and config.reduction.set == ("a=1", "b=-2") and config.compare


@pytest.mark.parametrize(("word", "value"), [("128", 128), ("0.222", 0.222), ("1", 1), ("1.0", 1.0)])
def test_keep_is_a_count_or_a_fraction(word, value):
    keep = parsed("--keep", word).reduction.keep
    assert keep == value and type(keep) is type(value)


def test_negative_values_are_values():
    assert parsed("--temperature", "-0.5").temperature == -0.5
    assert parsed("--temperature=-0.5").temperature == -0.5


def test_every_flag_is_known():
    assert {"--method", "--keep", "--set", "--model-path", "--compare"} <= set(flags_of(Config))
    assert "--names" not in flags_of(Config)


def test_all_mistakes_are_reported_together(capsys):
    code = run("pope", "--kep", "128", "--batch-size=0", "--temperature", "hot", "--model-path")
    message = capsys.readouterr().err
    assert code == 2 and message.startswith("4 mistakes")
    assert "Unknown option '--kep'. Did you mean '--keep'" in message
    assert "the batch is too small" in message and "'hot' is not a number" in message
    assert "--model-path needs a value" in message


@pytest.mark.parametrize(
    ("error", "code"),
    [(LlavaError("it failed"), 1), (BadInput("that is wrong"), 2), (KeyboardInterrupt("3 of 4 kept"), 130)],
)
def test_exit_codes_without_a_traceback(error, code, capsys):
    def fail(config):
        raise error

    assert run(main=fail) == code
    assert str(error) in (message := capsys.readouterr().err) and "Traceback" not in message


def test_a_bug_is_not_hidden():
    def fail(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main=fail)


def test_help_and_the_commands_own_exit_code(capsys):
    assert run("--help") == 0 and "--method" in capsys.readouterr().out
    assert run(main=lambda config: 1) == 1


class TestMethodOptions:
    def test_default_is_dart(self):
        assert MethodOptions().build() == DART()

    def test_keep_layer_and_set(self):
        options = MethodOptions(keep=64, layer=3, set=("pivots_visual=8", "order=norm"))
        assert options.build() == DART(keep=64, layer=3, pivots_visual=8, order="norm")
        assert options.label == "dart-64" and options.notes() == []

    def test_the_released_rule_counts(self):
        options = MethodOptions(reduction_ratio=0.778, max_num_tokens=128, set=("pivots_visual=8",))
        method = options.build("llava")
        assert method == DART.from_released("llava", 0.778, 128, pivots_visual=8)
        assert "128 counts" in options.notes("llava")[0] and "0.778 ignored" in options.notes("llava")[0]

    @pytest.mark.parametrize(("budget", "kept"), [(192, 196), (128, 132), (64, 68)])
    def test_random_keeps_as_many_as_dart_really_does(self, budget, kept):
        options = MethodOptions(method="random", reduction_ratio=0.5, max_num_tokens=budget)
        method = options.build("llava", seed=5)
        assert isinstance(method, Random) and method.n_kept(576) == kept and method.seed == 5

    def test_other_families_have_other_rules(self):
        options = MethodOptions(reduction_ratio=0.778, max_num_tokens=128)
        assert options.build("qwen2_vl").n_kept(576) == 124
        assert options.build("llava_next").n_kept(2880) == 324

    def test_none_ignores_the_released_arguments_and_says_so(self):
        options = MethodOptions(method="none", reduction_ratio=0.778, max_num_tokens=128)
        assert options.build().name == "none" and "ignored" in options.notes()[0] and options.label == "none"

    def test_all_mistakes_together(self):
        options = MethodOptions(
            reduction_ratio=1.0, max_num_tokens=0, keep=3, set=("pivot_visual=8", "nonsense", "order=random")
        )
        with pytest.raises(ConfigurationError) as caught:
            options.build()
        found = "\n".join(caught.value.problems)
        assert len(caught.value.problems) == 6
        for words in (
            "1.0 is outside [0, 1)",
            "budget 0",
            "not both",
            "'pivot_visual'",
            "NAME=VALUE",
            "order='random'",
        ):
            assert words in found

    @pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
    def test_ratio_outside_its_range(self, ratio):
        with pytest.raises(ConfigurationError, match="outside"):
            MethodOptions(reduction_ratio=ratio, max_num_tokens=128).build()

    @pytest.mark.parametrize("keep", [0, -1, 0.0, 1.5, float("nan")])
    def test_keep_outside_its_range(self, keep):
        with pytest.raises(ConfigurationError, match="--keep"):
            MethodOptions(keep=keep).build()

    def test_unknown_method(self):
        with pytest.raises(ConfigurationError, match="Did you mean 'dart'"):
            MethodOptions(method="drat").build()

    def test_a_method_from_a_file(self, tmp_path):
        file = tmp_path / "firsts.py"
        file.write_text(
            "from dataclasses import dataclass\n"
            "from llava.reduction import InLLM\n\n\n"
            "@dataclass(frozen=True)\n"
            "class Firsts(InLLM):\n"
            "    step: int = 1\n\n"
            "    def select(self, state):\n"
            "        return state.groups.valid\n"
        )
        method = MethodOptions(method_file=str(file), keep=7, set=("step=2",)).build()
        assert type(method).__name__ == "Firsts" and method.keep == 7 and method.step == 2


def test_a_misspelt_option_does_not_swallow_a_short_one():
    words, problems = commandline.check_words(["--kep", "128", "-p", "What is this?"], flags_of(Config))
    assert words == ["-p", "What is this?"] and len(problems) == 1


def test_variants_are_methods_times_budgets_and_none_comes_once():
    options = MethodOptions(method="none,dart,random", keep="64,0.5")
    found = [(x.method, x.keep) for x in options.variants()]
    assert found == [("none", None), ("dart", 64), ("dart", 0.5), ("random", 64), ("random", 0.5)]


@dataclass(frozen=True)
class WithName:
    """A command that needs a word."""

    name: tyro.conf.Positional[str]


def test_a_misspelt_option_is_told_beside_a_word_that_misses(capsys):
    assert commandline.run(lambda config: None, WithName, ["--nmae", "x"], prog="command") == 2
    message = capsys.readouterr().err
    assert "Missing from command" in message and "Unknown option '--nmae'" in message


def test_files_that_cannot_be_used_are_named_without_a_traceback(tmp_path, capsys):
    def write(config):
        (tmp_path / "none" / "a.json").write_text("{}")

    assert run(main=write) == 2
    assert capsys.readouterr().err == f"Error: {tmp_path / 'none' / 'a.json'}: No such file or directory.\n"


def test_a_full_disk_is_told_and_is_no_mistake_of_the_words(capsys):
    def write(config):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run(main=write) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_other_errors_of_the_system_keep_their_traceback():
    def broken(config):
        raise OSError("a bug")

    with pytest.raises(OSError, match="a bug"):
        run(main=broken)


def test_a_folder_below_a_file_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    assert commandline.folder_problems("--output", tmp_path / "new" / "deep") == []
    below = tmp_path / "file" / "deep"
    assert commandline.folder_problems("--output", below) == [
        f"--output {below}: {tmp_path / 'file'} is a file, give a folder."
    ]


def test_counts_below_the_least_are_told_and_auto_is_no_count():
    config = SimpleNamespace(batch_size="auto", limit=0, new_tokens=None)
    assert commandline.too_small(config, batch_size=1, limit=1, new_tokens=1) == [
        "--limit 0 is too small: give at least 1."
    ]
    config.batch_size = "many"
    assert "--batch-size many is no number" in commandline.too_small(config, batch_size=1)[0]
