"""`python -m llava` lists commands that exist."""

from importlib.util import find_spec
from pathlib import Path

from llava import __main__ as command


def test_every_command_that_is_listed_can_be_run(capsys):
    assert command.main([]) == 0
    said = capsys.readouterr().out
    for name in command.COMMANDS:
        assert f"python -m llava.{name}" in said
        module = find_spec(f"llava.{name}")
        module = find_spec(f"llava.{name}.__main__") if module.submodule_search_locations else module
        assert '__name__ == "__main__"' in Path(module.origin).read_text(encoding="utf-8")


def test_a_command_typed_as_a_word_is_told_how_to_type_it(capsys):
    assert command.main(["eval", "pope"]) == 2
    assert "Type `python -m llava.eval`" in capsys.readouterr().err
    assert command.main(["evla"]) == 2
    assert "Did you mean 'eval'?" in capsys.readouterr().err
