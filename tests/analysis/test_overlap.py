"""Overlap of kept sets: by hand, against all subsets, and the command's files."""

import csv
import itertools
import statistics

import numpy as np
import pytest

from llava.analysis import overlap
from llava.methodlists import choices


def chosen(n, *members):
    mask = np.zeros(n, dtype=bool)
    mask[list(members)] = True
    return mask


def test_overlap_by_hand():
    assert overlap.common_share(chosen(6, 0, 1, 2), chosen(6, 1, 2, 5)) == pytest.approx(2 / 3)
    assert overlap.common_share(chosen(6, 0, 1, 2), chosen(6, 2)) == pytest.approx(2 / 4)
    assert overlap.common_share(chosen(6), chosen(6)) == 0


@pytest.mark.parametrize(("a", "b", "n"), [(2, 2, 5), (1, 3, 5), (3, 3, 6)])
def test_the_chance_level_is_the_mean_over_all_subsets(a, b, n):
    every = [
        overlap.common_share(chosen(n, *one), chosen(n, *other))
        for one in itertools.combinations(range(n), a)
        for other in itertools.combinations(range(n), b)
    ]
    assert overlap.chance_share(a, b, n) == pytest.approx(statistics.mean(every))
    if a == b:
        assert overlap.chance_share(a, b, n) == pytest.approx(a / n)


def test_budgets_are_not_mixed_and_the_matrix_is_symmetric():
    class One:
        def __init__(self, *members):
            self.kept, self.n_visual, self.mask = np.array(members), 6, chosen(6, *members)

    methods = choices("dart,random", "k_norm_max,v_norm_max", "4,2")
    assert [one.label for one in methods] == [
        *("dart k_norm_max 4", "dart k_norm_max 2", "dart v_norm_max 4", "dart v_norm_max 2", "random 4", "random 2")
    ]
    kept = [[One(0, 1, 2, 3)], [One(0, 1)], [One(2, 3, 4, 5)], [One(2, 3)], [One(0, 1, 2, 3)], [One(0, 2)]]
    found = overlap.pairs(methods, kept)
    assert [(one.keep, one.overlap) for one in found] == [(4, 0.5), (4, 1.0), (4, 0.5), (2, 0), (2, 0.5), (2, 0.5)]
    titles, values = overlap.matrix(found, 4)
    assert titles == ["dart k_norm_max", "dart v_norm_max", "random"] and (values == values.T).all()
    assert values.diagonal().tolist() == [1, 1, 1] and values[0].tolist() == [1, 0.5, 1]
    assert [sentence.split(" (")[0] for sentence in overlap.verdicts(found)] == [
        "K-norm and V-norm pivots, 4 kept: overlap 50.0% on average",
        "K-norm and V-norm pivots, 2 kept: overlap 0.0% on average",
    ]
    assert "not less than" in overlap.verdicts(found)[0] and "not less" not in overlap.verdicts(found)[1]


def test_the_command_writes_the_pairs_that_the_claims_are_judged_by(analyse, tmp_path):
    words = ["--benchmark", "pope", "--data", "mini", "--limit", 3, "--keep", 12, "--methods", "dart,uniform"]
    code, found, said, _ = analyse("overlap", *words, "--criteria", "k_norm_max,v_norm_max")
    assert code == 0 and found["samples"] == 3 and found["format"] == 1
    pair = next(one for one in found["pairs"] if one["b"] == "dart v_norm_max")
    assert pair["a"] == "dart k_norm_max" and pair["keep"] == 12 and pair["samples"] == 3
    assert pair["chance"] == pytest.approx(pair["kept"] / 36, abs=1e-5) and 0 <= pair["overlap"] <= 1
    assert found["versions"]["torch"] and found["settings"]["benchmark"] == "pope" and "output" not in found["settings"]
    assert "K-norm and V-norm pivots, 12 kept" in (tmp_path / "out" / "overlap.md").read_text() and "dart" in said
    with open(tmp_path / "out" / "overlap.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 3
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"overlap_matrix_12.csv", "overlap.json"} <= set(files)
    analyse("overlap", *words, "--criteria", "k_norm_max,v_norm_max", "--batch-size", 2, folder="again")
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert {name for name in files if files[name] != again[name]} <= {"overlap.json"}  # the batch size is a setting


def test_all_mistakes_are_told_together(analyse):
    words = ["--limit", 0, "--keep", "128,1.5", "--methods", "dat", "--criteria", "k_norm", "--benchmark", "pop"]
    code, found, _, told = analyse("overlap", *words)
    assert code == 2 and found is None and told.startswith("5 mistakes")
    for words in ("--limit 0", "'1.5' is not usable", "Did you mean 'dart'", "criterion='k_norm'", "benchmark 'pop'"):
        assert words in told


def test_methods_without_places_and_single_ones_are_refused(analyse):
    code, found, _, told = analyse(
        "overlap", "--methods", "none", "--criteria", "", "--benchmark", "pope", "--limit", 1
    )
    assert code == 2 and found is None and "There is no method" in told
    words = ["--methods", "uniform", "--criteria", "", "--benchmark", "pope", "--limit", 1, "--keep", 12]
    code, found, _, told = analyse("overlap", *words)
    assert code == 2 and found is None and "needs two methods" in told
