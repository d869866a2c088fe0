"""Tell whether the running Python satisfies pyproject.toml: exit 0, or 1 with one line for each thing that is missing.

Usage: python scripts/check_environment.py [EXTRA ...]. Reads metadata only (no import of torch), so it takes 0.1 s.
"""

import sys
from importlib import metadata, util
from pathlib import Path

IMPORT_NAMES = {"pillow": "PIL", "protobuf": "google.protobuf"}  # where the import name is not the distribution's


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the requirement strings of the core and of the named extras."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def problem(line: str) -> str | None:
    """Return why the requirement is not met in this environment, or None."""
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate():
        return None
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{line} (not installed)"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{line} (found {version})"
    module = IMPORT_NAMES.get(requirement.name, requirement.name.replace("-", "_"))
    try:
        importable = util.find_spec(module) is not None
    except (ImportError, ValueError):
        importable = False
    return None if importable else f"{line} (installed, but '{module}' cannot be imported)"


def main(extras: list[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 (an older Python may well run this file)
        print(f"Python 3.10 or newer (found {sys.version.split()[0]})")
        return 1
    try:
        lines = requirements(Path(__file__).parents[1] / "pyproject.toml", extras)
        problems = [text for text in map(problem, lines) if text]
    except ModuleNotFoundError as missing:  # packaging itself: a bare environment
        problems = [f"{missing.name} (not installed)"]
    print("\n".join(problems), end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
