"""The wide curriculum: answers agree with a second reading of the scene, letters fit, nothing is lopsided."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from llava.train.chinese import LETTER_CN, WORDS
from llava.train.drills import sample_drills
from llava.train.examples import Difficulty
from llava.train.letters import LETTER
from llava.train.scenes import COLOR_NAMES, SHAPES
from llava.train.wide import EMPHASES, sample_wide

LEVEL = Difficulty(side=24, things=6, sign=0.6, characters=4, questions=12)
ENGLISH = {chinese: english for english, chinese in WORDS.items()}


def sample(long, number):
    rng = np.random.default_rng(11)
    return [sample_wide(rng, LEVEL, 336, 14, long) for _ in range(number)]


@pytest.fixture(scope="module")
def brief():
    return sample(False, 400)


@pytest.fixture(scope="module")
def long():
    return sample(True, 300)


def matching(examples, pattern):
    found = [(s, q, m) for s, asked in examples for q in asked if (m := re.match(pattern, q.text))]
    assert len(found) > 20, pattern
    return found


def number_of(scene, noun):
    word = noun.removesuffix(" objects")
    word = word if word in COLOR_NAMES else "cross" if word == "crosses" else word.removesuffix("s")
    return sum(word in (t.color, t.shape) for t in scene.things)


def named(scene, name):
    (thing,) = [t for t in scene.things if f"{t.color} {t.shape}" == name]
    return thing


def test_more_and_fewer_agree_with_the_counts(brief):
    for scene, q, m in matching(brief, r"Are there (more|fewer) (.+) than (.+) in the image\?"):
        a, b = number_of(scene, m[2]), number_of(scene, m[3])
        assert a != b and (q.answer == "Yes") == ((a > b) == (m[1] == "more"))
    for scene, q, m in matching(brief, r"Which are there (more|fewer) of, (.+) or (.+)\?"):
        most = max((m[2], m[3]), key=lambda noun: number_of(scene, noun))
        assert (q.answer == most) == (m[1] == "more")
    for scene, q, m in matching(brief, r"Is the number of (.+) the same as the number of (.+)\?"):
        assert (q.answer == "Yes") == (number_of(scene, m[1]) == number_of(scene, m[2]))


def test_sizes_and_sides_agree_with_the_things(brief):
    for scene, q, m in matching(brief, r"Which is (bigger|smaller), the (.+) or the (.+)\?"):
        a, b = named(scene, m[2]), named(scene, m[3])
        assert (q.answer == m[2]) == ((a.radius > b.radius) == (m[1] == "bigger"))
    for scene, q, m in matching(brief, r"Which is further (left|right|up|down), the (.+) or the (.+)\?"):
        a, b = named(scene, m[2]), named(scene, m[3])
        first = {"left": a.x < b.x, "right": a.x > b.x, "up": a.y < b.y, "down": a.y > b.y}[m[1]]
        assert q.answer == (m[2] if first else m[3])
    words = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    for scene, q, m in matching(brief, rf"What color is the (\w+) ({'|'.join(words)}) the (.+)\?"):
        b, (x, y) = named(scene, m[3]), words[m[2]]
        there = [t.color for t in scene.things if t.shape == m[1] and (t.x - b.x) * x + (t.y - b.y) * y > 0]
        assert there == [q.answer]


def test_scenes_of_things_alike_ask_where_they_are():
    rng = np.random.default_rng(5)
    level = replace(LEVEL, alike=1.0)
    examples = [sample_wide(rng, level, 336, 14, emphasis=EMPHASES["alike"]) for _ in range(80)]
    assert all(len({t.color for t in s.things}) <= 3 and len({t.shape for t in s.things}) <= 3 for s, _ in examples)
    assert all(len({t.name for t in s.things}) == len(s.things) for s, _ in examples)
    twins = 0
    for scene, q, m in matching(examples, r"Where is the (.+)\?"):
        thing = named(scene, m[1])
        assert q.answer == f"{'top' if thing.y < 168 else 'bottom'} {'left' if thing.x < 168 else 'right'}"
        twins += any(t is not thing and {t.color, t.shape} & {thing.color, thing.shape} for t in scene.things)
    assert twins > 0.8 * len(matching(examples, r"Where is the (.+)\?"))


def test_signs_are_read_and_summed(brief):
    for scene, q, _ in matching(brief, r"What is the result of the sum on the sign\?"):
        assert int(q.answer) == eval(scene.sign.text)
    for scene, q, m in matching(brief, r"Is the answer to the sum on the sign (-?\d+)\?"):
        assert (q.answer == "Yes") == (eval(scene.sign.text) == int(m[1])) and int(m[1]) >= 0
    for scene, q, m in matching(brief, r"What is the (first|second|third|last) character on the sign\?"):
        assert q.answer == scene.sign.text[{"first": 0, "second": 1, "third": 2, "last": -1}[m[1]]]
    assert {len(s.sign.text) for s, _ in brief if s.sign} == {2, 3, 4}


def options(q):
    found = dict(re.findall(r"^([A-D])\. (.+)$", q.text, re.M))
    assert list(found) == list("ABCD")[: len(found)] and len(set(found.values())) == len(found) >= 2
    assert q.answer in (found.values() if in_words(q) else found)
    return found


def in_words(q):
    return q.kind.endswith("in words")


def chosen(q):
    """The option that the answer names, by its letter or in words."""
    return q.answer if in_words(q) else options(q)[q.answer]


def test_letters_name_the_right_option(long):
    for scene, q, m in matching(long, r"(?:.+\n)?What color is the (\w+)\?\nA"):
        assert [t.color for t in scene.things if t.shape == m[1]] == [chosen(q)]
        assert in_words(q) or q.ending == LETTER
    for scene, q, m in matching(long, r"(?:.+\n)?How many (.+) are there in the image\?\nA"):
        assert int(chosen(q)) == number_of(scene, m[1])
    for scene, q, _ in matching(long, r"(?:.+\n)?Which of these is (?:not )?in the image\?"):
        present = {t.name for t in scene.things}
        there = [letter for letter, name in options(q).items() if (name in present) != (" not " in q.text)]
        assert [options(q)[letter] for letter in there] == [chosen(q)]


def test_chinese_questions_mean_what_their_answers_say(long):
    for scene, q, m in matching(long, r"(?:请看.+\n)?(\w+形|圆环)是什么颜色？"):
        color = ENGLISH[chosen(q)]
        assert [t.color for t in scene.things if t.shape == ENGLISH[m[1]]] == [color]
        assert in_words(q) or q.ending == LETTER_CN
    for scene, q, m in matching(long, r"(?:请看.+\n)?图中有几个(.+)？"):
        word = ENGLISH[m[1].removesuffix("物体")]
        assert int(chosen(q)) == sum(word in (t.color, t.shape) for t in scene.things)


def test_further_turns_name_the_right_option_too(long):
    seen = Counter()
    for scene, q, _ in matching(long, r"(?:.+\n)?(?:What color|How many|Which option|What shape)"):
        for text, answer in q.follow:
            if m := re.match(r"What color is the (\w+)\?", text):
                assert [t.color for t in scene.things if t.shape == m[1]] == [options(q)[answer]]
            elif m := re.match(r"How many (.+) are there", text):
                assert int(options(q)[answer]) == number_of(scene, m[1])
            elif m := re.match(r"Which option is (.+)\?", text):
                right = q.answer if m[1] == "it" else m[1]
                assert options(q)[answer] == right
            elif text == "What is it?":
                assert answer == chosen(q)
            else:
                continue
            seen[text.split()[1]] += 1
    assert min(seen[word] for word in ("color", "many", "option", "is")) > 5, seen


def test_unanswerable_is_said_exactly_when_nothing_fits(long):
    said = 0
    for scene, q, m in matching(long, r"What (color|shape) is the (\w+)(?: object)?\?\nWhen the provided"):
        fitting = [t for t in scene.things if m[2] in (t.color, t.shape)]
        expected = "Unanswerable" if not fitting else getattr(fitting[0], m[1])
        assert q.answer == expected and len(fitting) < 2
        said += not fitting
    assert said > 20


def test_answers_are_balanced(brief, long):
    answers, places = defaultdict(Counter), defaultdict(Counter)
    for _, asked in brief:
        for q in asked:
            if q.answer in ("Yes", "No"):
                answers[q.kind][q.answer] += 1
    for kind in ("comparison", "size", "logic", "ocr", "calculation", "relation"):
        assert 0.38 < answers[kind]["Yes"] / sum(answers[kind].values()) < 0.62, (kind, answers[kind])
    for _, asked in long:
        for q in asked:
            if q.kind.startswith("choice") and not in_words(q):
                places[len(options(q))][q.answer] += 1
    for number, found in places.items():
        assert all(abs(found[c] / sum(found.values()) - 1 / number) < 0.12 for c in "ABCD"[:number]), found


def test_counts_come_evenly(brief):
    counts = Counter(q.answer for _, asked in brief for q in asked if q.text.startswith("How many") and q.answer < "5")
    assert min(counts.values()) > 0.15 * max(counts.values()), counts
    assert set(SHAPES) <= {q.answer for _, asked in brief for q in asked}


def test_exercises_need_no_picture_and_are_right():
    rng = np.random.default_rng(2)
    asked = [q for _ in range(60) for q in sample_drills(rng, 8, 336, 14)[1]]
    assert {q.kind for q in asked} == {"drill"}
    for q in asked:
        if m := re.match(r"(?:Which option is|哪个选项是)(.+?)[?？]\n", q.text):
            assert options(q)[q.answer] == m[1].strip()
        elif m := re.match(r"What is option ([A-D])\?\n", q.text):
            assert dict(re.findall(r"^([A-D])\. (.+)$", q.text, re.M))[m[1]] == q.answer
        else:
            right, said = eval(re.search(r"\d\+\d", q.text)[0]), re.search(r" (\d+)\?$", q.text)
            assert q.answer == (str(right) if said is None else "Yes" if int(said[1]) == right else "No")
