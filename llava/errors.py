"""Errors that speak to the user: each message says what was given, what is allowed and what to type."""


class LlavaError(Exception):
    """Base of all errors this package raises on purpose; commands print its text without a traceback."""

    exit_code = 1


class BadInput(LlavaError):
    """Something the user gave cannot be used (exit code 2)."""

    exit_code = 2


class ConfigurationError(BadInput):
    """One or several options are wrong; `problems` lists all of them.

    Args:
        problems: one sentence per mistake, in the order they were found.
    """

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class UnsupportedModel(BadInput):
    """The method or the command cannot work with this model; the message names what can."""


class CheckpointError(BadInput):
    """A checkpoint is incomplete, damaged or of an unknown kind."""


class MissingData(BadInput):
    """Files that a command needs are absent; the message lists every missing path."""


class BadData(BadInput):
    """A data file is there but malformed; the message gives file and line numbers."""


def first_line(error: Exception) -> str:
    """Return what an error of another library says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
