"""Every figure on a tiny model with random weights: computed, drawn, and drawn again from the files alone."""

import json

import pytest

from llava.loadoptions import LoadOptions
from llava.report import runs
from llava.report.cells import Source
from llava.report.figures import bars, looks, sweeps, tradeoff
from llava.report.store import Store
from tests.eval.small_data import write_pope
from tests.model.llava_folder import write_checkpoint

pytest.importorskip("matplotlib")
POPE = ("pope",)
FIGURES = (
    looks.Captions(n_scenes=2, shown=1, n_words=2),
    bars.AgainstRandom(POPE),
    tradeoff.ScoreAgainstTime(POPE, (0.889,), ("random", "dart", "mustdrop")),
    sweeps.PrunedLayer(POPE, (0.889,)),
    sweeps.PivotCount(POPE, counts=(1, 4, 16)),
    bars.PivotSource(POPE, pivots=4),
    looks.PivotMasks(),
)


def test_every_figure_on_a_tiny_model(tmp_path, monkeypatch):
    checkpoint = write_checkpoint(tmp_path / "tiny")
    write_pope(tmp_path / "playground" / "data" / "eval" / "pope" / "mini")
    monkeypatch.chdir(tmp_path)
    store = Store(Source("out", run=True, limit=2, model=LoadOptions(str(checkpoint))))
    cells = [cell for figure in FIGURES for cell in figure.cells(store.target)]
    left_out = runs.complete(store, cells, lambda sentence: None)
    # 8 visual pivots do not fit into 4 tokens, and MustDrop's windows are 3 wide
    assert any("pivots_visual" in sentence for sentence in left_out)
    for figure in FIGURES:
        paths = figure.make(store, tmp_path / "first")
        assert all(path.stat().st_size > 100 for path in paths)
    content = json.loads((tmp_path / "first" / "figure5.json").read_text())
    assert {row["kept_last_layer"] for row in content["rows"] if row["series"] == sweeps.EMPTY} == {0.0}
    assert "Left out" in json.dumps(json.loads((tmp_path / "first" / "figure6.json").read_text())["notes"])
    # Other weights under the same name: what was kept is computed anew.
    kept = tmp_path / "out" / "kept-figure8-tiny.json"
    kept.write_text(kept.read_text().replace(store.loaded().digest, "other"))
    FIGURES[6].make(store, tmp_path / "first")
    assert store.loaded().digest in kept.read_text()
    # What was computed is enough for the same bytes, without a model.
    again = Store(Source("out", limit=2, model=LoadOptions(str(checkpoint))))
    for figure in (FIGURES[0], FIGURES[3], FIGURES[6]):
        for path in figure.make(again, tmp_path / "second"):
            assert path.read_bytes() == (tmp_path / "first" / path.name).read_bytes()
