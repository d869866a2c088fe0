"""TextVQA: the worked example, prompts of the model families, lookup by image and question."""

import json

import pytest

from llava.errors import BadData
from llava.eval.benchmarks import get
from llava.eval.benchmarks.textvqa import question_of
from tests.eval.small_data import SINGLE_WORD, TEXTVQA_ANSWERS, answers_to, read_lines, write_textvqa


@pytest.fixture
def root(tmp_path):
    return write_textvqa(tmp_path / "textvqa")


def answers(root, texts):
    return answers_to(read_lines(root / "llava_textvqa_val_v051_ocr.jsonl"), texts)


def test_worked_example(root):
    score = get("textvqa").score(root, answers(root, ["Nokia", "the Two", "coca-cola", "1,000", "dakota digital"]))
    assert score.headline.value == pytest.approx(56.0)
    assert score.printout == ("Samples: 5", "Accuracy: 56.00%")


def test_gold_answers_score_100(root):
    best = [max(set(given), key=given.count) for given in TEXTVQA_ANSWERS.values()]
    assert get("textvqa").score(root, answers(root, best)).headline.value == 100


def test_order_of_the_answers_does_not_matter(root):
    rows = answers(root, ["Nokia", "the Two", "coca-cola", "1,000", "dakota digital"])
    assert get("textvqa").score(root, rows[::-1]).headline.value == pytest.approx(56.0)


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        (f"What Brand?\nReference OCR token: ACME, Cola\n{SINGLE_WORD}", "what brand?"),
        (f"What Brand?\nReference OCR token: \n{SINGLE_WORD}", "what brand?"),
        (f"Reference OCR token: ACME\nWhat Brand?\n{SINGLE_WORD}", "what brand?"),
        (f"What Brand?\n{SINGLE_WORD}", "what brand?"),
        ("OCR tokens: ACME. Question: What Brand? Short answer:", "what brand?"),
    ],
)
def test_the_question_is_found_in_every_known_prompt(prompt, question):
    assert question_of(prompt) == question


@pytest.mark.parametrize("prompt", ["", "one line", f"a\nb\n{SINGLE_WORD}", "OCR tokens: ACME."])
def test_other_prompts_are_an_error(prompt):
    with pytest.raises(ValueError):
        question_of(prompt)


def test_prompts_of_the_families(root):
    text = f"What BRAND is shown?\nReference OCR token: ACME\n{SINGLE_WORD}"
    benchmark = get("textvqa")
    assert benchmark.prompt(text, "llava") == text
    assert benchmark.prompt(text, "llava_next") == f"What BRAND is shown?\n{SINGLE_WORD}"
    assert benchmark.prompt(text, "qwen2_vl") == f"What brand is shown?\n{SINGLE_WORD}"
    question = benchmark.questions(root, "llava_next")[0]
    assert "Reference" in question.text and "Reference" not in question.prompt


def test_scoring_needs_no_question_file(root):
    rows = answers(root, ["Nokia", "the Two", "coca-cola", "1,000", "dakota digital"])
    (root / "llava_textvqa_val_v051_ocr.jsonl").unlink()
    assert get("textvqa").score(root, rows).headline.value == pytest.approx(56.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows + rows[:1], "more than once"),
        (lambda rows: [{**rows[0], "question_id": "zz99"}], "no annotation"),
        (lambda rows: [{**rows[0], "prompt": "one line"}], "answer 1"),
    ],
)
def test_answers_that_do_not_fit_are_refused(root, change, words):
    with pytest.raises(BadData, match=words):
        get("textvqa").score(root, change(answers(root, ["x"] * 5)))


def test_malformed_annotations_are_listed(root):
    path = root / "TextVQA_0.5.1_val.json"
    content = json.loads(path.read_text())
    del content["data"][0]["image_id"]
    content["data"][2]["answers"] = ["coke"] * 9
    path.write_text(json.dumps(content))
    with pytest.raises(BadData) as caught:
        get("textvqa").score(root, answers(root, ["x"] * 5))
    assert "item 1: without image_id" in str(caught.value) and "item 3: 9 answers" in str(caught.value)
