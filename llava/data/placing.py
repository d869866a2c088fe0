"""Puts the files of archives and folders where a benchmark's layout wants them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from llava.data.catalogue import CATALOGUE, Item
from llava.errors import BadData

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".mp4", ".avi", ".mov", ".mkv")
RENAMED = {("gqa", "data/images/"): ("images",)}
"""Folders that have another name in the official archive."""
EXTRA = {
    "vqav2": ("v2_OpenEnded_mscoco_test-dev2015_questions.json", "v2_OpenEnded_mscoco_test2015_questions.json"),
    "vqav2_val": ("v2_OpenEnded_mscoco_val2014_questions.json",),
    "mm_vet": ("mm-vet.json",),
}
"""Official files that the question file is rebuilt from, and that scoring does not need."""


def destination(name: str, member: str) -> str | None:
    """Return where a file belongs below the benchmark's folder, or None when the set does not need it.

    Args:
        name: of the benchmark.
        member: path inside the archive or folder.
    """
    parts = PurePosixPath(member.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[-1].startswith(".") or "__MACOSX" in parts:
        return None
    if parts[-1] in EXTRA.get(name, ()):
        return parts[-1]
    for item in CATALOGUE[name].items:
        found = _in_folder(name, item, parts) if item.is_folder else _as_file(item, parts)
        if found is not None:
            return found
    return None


def _as_file(item: Item, parts: tuple[str, ...]) -> str | None:
    return item.path if parts[-1] == PurePosixPath(item.path).name else None


def _in_folder(name: str, item: Item, parts: tuple[str, ...]) -> str | None:
    wanted = PurePosixPath(item.path).parts
    if not parts[-1].lower().endswith((*IMAGES, ".txt")):
        return None
    for names in (wanted, RENAMED.get((name, item.path), ()), wanted[-1:]):
        for start in range(len(parts) - len(names)):
            if names and parts[start : start + len(names)] == tuple(names):
                return str(PurePosixPath(item.path, *parts[start + len(names) :]))
    return None


def place(name: str, source: Path, root: Path) -> int:
    """Copy what a benchmark needs out of a zip archive, a folder or a single file; return how many files.

    Raises:
        BadData: the archive is damaged.
    """
    count = 0
    for member, copy in _members(source):
        target = destination(name, member)
        if target is None:
            continue
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        copy(new)
        new.replace(path)
        count += 1
    return count


def _members(source: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    if source.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(source) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        yield info.filename, _extractor(archive, info)
        except (zipfile.BadZipFile, EOFError) as error:
            raise BadData(f"{source} is not a complete zip archive: {error}.") from error
    elif source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                yield f"{source.name}/{path.relative_to(source).as_posix()}", _copier(path)
    else:
        yield source.name, _copier(source)


def _extractor(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[Path], None]:
    def extract(target: Path) -> None:
        with archive.open(info) as content, target.open("wb") as file:
            shutil.copyfileobj(content, file)

    return extract


def _copier(path: Path) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        shutil.copyfile(path, target)

    return copy
