"""scripts/setup.sh with a stand-in for Python: what it installs, when it installs again, whose environment it uses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Acts as `python`: makes environments that hold itself, logs each install, and lacks all that pyproject.toml asks for.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    "-m pip install "*) echo "$*" >>"$PIP_LOG"; echo "pip says no" ; exit "${PIP_EXIT:-0}" ;;
    *check_environment.py*) echo "torch>=2.6 (not installed)"; exit 1 ;;
esac
"""


class Sandbox:
    """A repository with setup.sh in it, and a PATH on which `python3` is the stand-in."""

    def __init__(self, folder):
        self.root, self.bin, self.log = folder / "a repository", folder / "bin", folder / "pip.log"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("setup.sh", "check_environment.py"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts" / name)
        (self.root / "pyproject.toml").write_text("[project]\ndependencies = []\n")
        (self.root / "constraints.txt").write_text("torch==2.13.0\n")
        for name in ("python", "python3"):
            (self.bin / name).write_text(STAND_IN)
            (self.bin / name).chmod(0o755)

    @property
    def installs(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def setup(self, extras="", after="command -v python", **variables):
        """Source setup.sh from the file system's root, as a script with `set -euo pipefail` and arguments does."""
        keep = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        env = {**keep, "PATH": f"{self.bin}:/usr/bin:/bin", "PIP_LOG": str(self.log), **variables}
        lines = f'set -euo pipefail; SETUP_EXTRAS="{extras}"; . "{self.root}/scripts/setup.sh"; {after}'
        command = ["bash", "-c", lines, "script", "0.778", "128"]
        return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path)


def test_first_run_installs_and_the_next_ones_do_not(sandbox):
    first = sandbox.setup()
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == f"{sandbox.root}/.venv/bin/python"
    assert len(sandbox.installs) == 1
    assert f"--constraint {sandbox.root}/constraints.txt --editable {sandbox.root}" in sandbox.installs[0]
    second = sandbox.setup()
    assert second.returncode == 0 and len(sandbox.installs) == 1
    assert second.stderr == f"setup: using {sandbox.root}/.venv\n"


def test_extras_are_added_once_and_include_the_core(sandbox):
    sandbox.setup()
    assert sandbox.setup("dev eval").returncode == 0
    assert sandbox.installs[1].endswith(f"--editable {sandbox.root}[dev,eval]")
    for extras in ("", "dev", "eval", "eval dev"):
        sandbox.setup(extras)
    assert len(sandbox.installs) == 2


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_the_requirements_installs_again(sandbox, name):
    sandbox.setup()
    with (sandbox.root / name).open("a") as file:
        file.write("# changed\n")
    sandbox.setup()
    sandbox.setup()
    assert len(sandbox.installs) == 2


def test_a_failed_install_is_told_and_not_stamped(sandbox):
    failed = sandbox.setup(PIP_EXIT="1", after="echo went on")
    assert failed.returncode != 0 and failed.stdout == ""
    assert "pip says no" in failed.stderr and "run the same command again" in failed.stderr
    assert sandbox.setup().returncode == 0 and len(sandbox.installs) == 2


def test_a_failed_upgrade_takes_the_old_stamp_away(sandbox):
    sandbox.setup()
    before = (sandbox.root / "constraints.txt").read_text()
    (sandbox.root / "constraints.txt").write_text("torch==3\n")
    sandbox.setup(PIP_EXIT="1")
    (sandbox.root / "constraints.txt").write_text(before)
    sandbox.setup()
    assert len(sandbox.installs) == 3


def test_a_removed_python_is_noticed(sandbox):
    sandbox.setup()
    (sandbox.root / ".venv" / "bin" / "python").unlink()
    assert sandbox.setup().returncode == 0 and len(sandbox.installs) == 2


def test_an_active_environment_that_lacks_something_is_left_alone(sandbox):
    result = sandbox.setup(VIRTUAL_ENV="/somewhere/env")
    assert result.returncode == 0 and result.stdout.strip() == f"{sandbox.root}/.venv/bin/python"
    assert "the active environment /somewhere/env lacks torch>=2.6 (not installed)" in result.stderr


def test_an_active_environment_that_satisfies_the_package_is_used(sandbox):
    """With the real interpreter and the real requirements."""
    shutil.copy(ROOT / "pyproject.toml", sandbox.root / "pyproject.toml")
    folder = str(Path(sys.executable).parent)
    result = sandbox.setup(
        after="command -v python; echo $PYTHONPATH",
        VIRTUAL_ENV=sys.prefix,
        PATH=f"{folder}:{os.environ['PATH']}",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{folder}/python", str(sandbox.root)]
    assert result.stderr == f"setup: using the active environment ({sys.prefix})\n"
    assert not (sandbox.root / ".venv").exists()


def test_environment_check_names_what_is_missing_or_too_old(sandbox):
    (sandbox.root / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2", "numpy>=999", "no-such-thing>=1", "pillow; python_version < \'3\'"]\n'
        '[project.optional-dependencies]\nmore = ["nothing-either"]\n'
    )
    check = [sys.executable, sandbox.root / "scripts" / "check_environment.py", "more"]
    result = subprocess.run(check, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert result.returncode == 1 and len(lines) == 3
    assert lines[0].startswith("numpy>=999 (found ")
    assert lines[1:] == ["no-such-thing>=1 (not installed)", "nothing-either (not installed)"]


def test_constraints_lie_within_the_ranges():
    from packaging.requirements import Requirement
    from packaging.version import Version

    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    exact = {pin.name.lower(): Version(next(iter(pin.specifier)).version) for pin in pins}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        assert exact[requirement.name.lower()] in requirement.specifier, requirement
