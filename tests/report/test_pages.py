"""Pages of the methods: every method has one, it is up to date, and it says what its class and module say."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from llava.reduction import BeforeLLM, registry
from llava.report import __main__ as command
from llava.report import docstrings, methodpictures, overlay, pages, records

ROOT = Path(__file__).parents[2]
PLACE = pages.Place(ROOT / "docs/methods", ROOT / "images/methods", ROOT / "docs/results/nano-methods", ROOT)
HEADINGS = ["Kept tokens", "Options", "How it selects", "Measured", *docstrings.HEADS[1:2], docstrings.AVOID]


def measured():
    return records.read(PLACE.results) if PLACE.results.is_dir() else []


def recorded(name, budget, **options):
    """A result as the runner writes it, as far as pages read it."""
    return {
        "benchmark": "pope",
        "title": "POPE",
        "split": "mini",
        "headline": {"name": "f1", "unit": "%", "value": 90.0},
        "samples": {"scored": 10},
        "method": {"name": name, "label": f"{name}-{budget}" if budget else name, "options": options},
        "model": {"name": "nano", "weights_digest": "abc"},
        "accounting": {"asked": 64, "final": 68, "visual": 576, "mean_over_layers": 195.5, "cache_bytes": 4}
        | {"cache_bytes_unpruned": 10, "flops_exact": 37, "flops_exact_unpruned": 100},
        "timings": None,
        "device": "cpu",
        "dtype": "float32",
        "attention": "sdpa",
        "versions": {"torch": "2", "transformers": "5"},
    }


@pytest.mark.parametrize("name", pages.names())
class TestEveryMethod:
    def test_the_committed_page_is_up_to_date(self, name):
        assert (PLACE.pages / f"{name}.md").read_text(encoding="utf-8") == pages.page(name, measured(), PLACE), (
            "type: python -m llava.report methods --text-only"
        )

    def test_its_module_says_all_that_a_page_needs(self, name):
        cls = registry.get(name)
        assert set(docstrings.paragraphs(cls)) == set(docstrings.HEADS)
        meanings = docstrings.options(cls)
        assert all(meanings.values()) and not re.search(r"see `[A-Z]", " ".join(meanings.values()))

    def test_the_page_has_every_part(self, name):
        text = pages.page(name, [], PLACE)
        assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == HEADINGS
        assert not re.search(r"^## .*\n\n(?=##|$)", text, flags=re.MULTILINE)  # none of them empty
        for field in dataclasses.fields(registry.get(name)):
            assert (f"| `{field.name}` | " in text) == (not field.metadata.get("private"))
        assert all(f"| `{preset}` | " in text for preset in registry.get(name).presets)

    def test_its_picture_is_there_and_small(self, name):
        picture = PLACE.pictures / f"{name}.png"
        assert picture.is_file() == pages.drawable(registry.get(name))
        assert not picture.is_file() or picture.stat().st_size <= 60_000

    def test_links_lead_somewhere(self, name):
        links = re.findall(r"\]\(([^)#\s]+)", (PLACE.pages / f"{name}.md").read_text(encoding="utf-8"))
        assert not [link for link in links if "://" not in link and not (PLACE.pages / link).exists()]


def test_the_index_has_every_method_and_no_page_is_left_over():
    assert (PLACE.pages / "README.md").read_text(encoding="utf-8") == pages.index(PLACE)
    found = {path.stem for path in PLACE.pages.glob("*.md")}
    assert found == {*pages.names(), "README"} and set(pages.names()) <= set(registry.names())


def test_measurements_stand_next_to_the_control_and_changed_options_are_told():
    runs = [recorded("none", ""), recorded("dart", "64", keep=64), recorded("random", "64", keep=64)]
    text = pages.page("dart", [*runs, recorded("divprune", "64", keep=64)], PLACE)
    assert "| dart | 64 | 68 of 576 | 195.5 | 40 % | 37 % | 90.00 | 100.0 % |" in text
    assert "| random | 64 |" in text and "| none |" in text and "| divprune |" not in text
    assert "--method none,dart,random --preset 192,128,64 --output docs/results/nano-methods" in text
    assert "unlike the presets" not in text
    changed = [*runs[:1], recorded("dart", "64", keep=64, layer=3, order="norm")]
    assert "Measured with `layer=3`, `order='norm'`, unlike the presets." in pages.page("dart", changed, PLACE)
    assert pages.settings("dart", changed)["64"] == registry.create("dart", keep=64, layer=3, order="norm")
    assert list(pages.settings("dart", changed)) == ["192", "128", "64"]


def test_meanings_are_looked_up_in_the_classes_they_refer_to():
    @dataclass(frozen=True)
    class Own(BeforeLLM):
        """Keep something.

        Args:
            keep, positions: see `BeforeLLM`. Or else.
            step: how far,
                in tokens.

        A remark.
        """

        step: int = 2

    found = docstrings.options(Own)
    assert found["keep"].startswith("visual tokens left per image") and found["keep"].endswith("tokens. Or else.")
    assert found["positions"].startswith('"renumbered"') and "Or else" not in found["positions"]
    assert found["step"] == "how far, in tokens."
    assert docstrings.class_doc(Own) == ("Keep something.", "A remark.")


def test_numbers_are_shown_as_one_would_type_them():
    text = pages.page("divprune", [], PLACE)
    assert "| `320` | `keep=1/9` |" in text and "[arXiv:2503.02175](https://arxiv.org/abs/2503.02175)" in text


def test_the_command_writes_pages_without_a_model(tmp_path, capsys):
    words = ["methods", "--text-only", "--output", str(tmp_path), "--results", str(tmp_path / "none")]
    assert command.main([*words, "--only", "tome"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"tome.md", "README.md"}
    assert "Not yet; make results with" in (tmp_path / "tome.md").read_text()
    assert command.main([*words, "--only", "tomme"]) == 2
    assert "Did you mean 'tome'" in capsys.readouterr().err


def test_pictures_are_the_same_every_time_and_have_few_colours():
    pytest.importorskip("matplotlib")
    image = Image.effect_noise((40, 40), 90).convert("RGB")
    panels = [overlay.Panel("all: 16 of 16", overlay.faded(image, range(4), (4, 4)), "A")]
    first = methodpictures.small_png(panels, "What?")
    assert first == methodpictures.small_png(panels, "What?") and first.startswith(b"\x89PNG")
