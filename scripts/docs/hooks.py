"""MkDocs hooks: sections of the README as pages, API pages, folders in the navigation, links of the repository.

A link that leaves docs/ is kept: what it names is copied into the site (below `repository/`), a folder's name stays as
plain text. Pages that are read on their own and in the site can so be written once.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
STYLE, MORE = "site.css", "More"
WHOLE = {  # page -> Markdown file outside of docs/ that becomes it
    "index.md": "README.md",
    "data.md": "playground/README.md",
    "llava_nano.md": "llava/assets/llava-nano/README.md",
}
RAW = (".json", ".jsonl", ".csv")  # results: left out of the site by mkdocs.yml unless a page links them
SECTIONS = {  # page -> heading of the README that becomes it; the rest is the first page
    "models.md": "Models and what works with what",
    "command_line.md": "Command line",
    "web.md": "Web demo",
    "adding.md": "Adding to it",
}
ORIGINS = {**WHOLE, **dict.fromkeys(SECTIONS, WHOLE["index.md"])}
API = {  # page -> title, a sentence, and what is on it
    "api/index.md": (
        "Python API",
        "What `import llava` gives, and how a method is put on a model.",
        ["llava.model.builder.load", "llava.model.pruning.Pruning", "llava.model.report.Report"],
    ),
    "api/methods.md": (
        "Methods as classes",
        "Every method is a frozen dataclass; its fields are its options. Each has a page of its own under Methods.",
        [],
    ),
    "api/registry.md": ("The register", "Names to methods, and methods of your own.", ["llava.reduction.registry"]),
    "api/own.md": (
        "For methods of your own",
        "The base classes and what they hand to a method.",
        [
            "llava.reduction.base.Reduction",
            "llava.reduction.base.InLLM",
            "llava.reduction.base.LLMStage",
            "llava.reduction.base.LayerState",
            "llava.reduction.groups.Groups",
            "llava.reduction.base.Selection",
            "llava.reduction.schedule.Schedule",
            "llava.reduction.image.BeforeLLM",
            "llava.reduction.image.ImageState",
            "llava.reduction.image.Kept",
            "llava.reduction.image.Encoder",
        ],
    ),
    "api/more.md": (
        "Chains, calibration, reuse, compiling",
        "Two methods in a row, budgets of adaptive methods, and the same answers in less time.",
        [
            "llava.reduction.chain.Chain",
            "llava.model.calibrate.calibrate",
            "llava.model.reuse.Reuse",
            "llava.model.fast.Fast",
        ],
    ),
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?( \"[^\"]*\")?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    texts = {page: (ROOT / origin).read_text(encoding="utf-8") for page, origin in WHOLE.items()}
    readme = texts["index.md"]
    for page, title in SECTIONS.items():
        section = _section(readme, title)
        texts[page] = f"# {title}\n{section}"
        texts["index.md"] = texts["index.md"].replace(f"## {title}\n{section}", "")
    for page, (title, sentence, objects) in API.items():
        entries = objects or _method_classes()
        texts[page] = "\n\n".join([f"# {title}", sentence, *(f"::: {name}" for name in entries)])
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, STYLE, abs_src_path=str(Path(__file__).with_name(STYLE))))
    return files


def on_config(config: Any) -> Any:
    """Put folders and unnamed pages into the navigation."""
    docs = Path(config.docs_dir)
    named = {target for target in _targets(config.nav) if not target.endswith("/")}
    folders = [target for target in _targets(config.nav) if target.endswith("/")]
    for entry in config.nav:
        for title, target in list(entry.items()):
            if isinstance(target, str) and target.endswith("/"):
                entry[title] = _folder(docs, target)
    pages = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    left = [page for page in pages if page not in named and not page.startswith(tuple(folders))]
    if left:
        config.nav.append({MORE: left})
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links of the repository links of the site, outside of code blocks."""
    origin = ORIGINS.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts, end = [], 0
    for fence in [*FENCE.finditer(markdown), None]:
        prose = markdown[end : fence.start() if fence else None]
        parts.append(LINK.sub(lambda link: _link(link, origin, page.file.src_uri, config, files), prose))
        if fence:
            parts.append(fence[0])
            end = fence.end()
    return "".join(parts)


def _link(link: re.Match[str], origin: str, page: str, config: Any, files: Files) -> str:
    """One link: to a page, to a file that is copied, or the plain words where it names a folder."""
    shown, words, target, anchor, hint = link.groups()
    place = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if place == "." or (ROOT / place).is_dir():
        return words
    uri = next((whole for whole, source in WHOLE.items() if source == place), None)
    if uri is None:
        in_docs = place.startswith("docs/") and not place.endswith(RAW)
        if not in_docs and place.endswith(".md"):
            raise ValueError(f"{page} links {place}, which is no page: add it to WHOLE in {Path(__file__).name}.")
        uri = place.removeprefix("docs/") if in_docs else f"repository/{place}"
    if uri.startswith("repository/") and files.get_file_from_path(uri) is None and (ROOT / place).is_file():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / place)))
    return f"{shown}[{words}]({posixpath.relpath(uri, posixpath.dirname(page) or '.')}{anchor or ''}{hint or ''})"


def _section(readme: str, title: str) -> str:
    """Text below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no section '{title}': change SECTIONS in {Path(__file__).name}.")
    return found[1]


def _targets(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [target for part in (nav.values() if isinstance(nav, dict) else nav) for target in _targets(part)]


def _folder(docs: Path, folder: str) -> list[Any]:
    """Pages of a folder, its index first; those of a folder inside of it in a group of its name."""
    pages = {path.relative_to(docs).as_posix() for path in docs.joinpath(folder).rglob("*.md")}
    pages |= {page for page in API if page.startswith(folder)}
    first = [page for page in (f"{folder}README.md", f"{folder}index.md") if page in pages]
    others = [page for page in (API if folder == "api/" else sorted(pages)) if page not in first]
    found: list[Any] = list(first)
    groups: dict[str, list[Any]] = {}
    for page in others:
        entry = {API[page][0] if page in API else _title(docs / page): page}
        inner, slash, _ = page.removeprefix(folder).partition("/")
        (groups.setdefault(inner, []) if slash else found).append(entry)
    return [*found, *({inner.capitalize(): entries} for inner, entries in groups.items())]


def _title(page: Path) -> str:
    """The first heading: MkDocs itself takes the file's name where a comment stands before it."""
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1] if heading else page.stem


def _method_classes() -> list[str]:
    """Where the public classes of methods are defined, read from the package's own list, which is not imported."""
    exported = (ROOT / "llava/reduction/__init__.py").read_text(encoding="utf-8")
    public = (ROOT / "llava/__init__.py").read_text(encoding="utf-8")
    found = re.findall(r"^from (llava\.reduction\.\w+) import (.+)$", exported, re.MULTILINE)
    pairs = [(module, name.strip()) for module, names in found for name in names.split(",")]
    return [f"{module}.{name}" for module, name in pairs if f'"{name}"' in public and name != "Chain"]
