"""The demo without a page: columns, streaming, several turns, what is refused, and the same answers as the chat."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from llava.errors import BadInput, ConfigurationError, MissingData
from llava.report.overlay_boards import Board
from llava.serve import cli
from llava.serve.session import Interrupted
from llava.serve.web import cards
from llava.serve.web.demo import DONE, FAILED, STOPPED, WAITING
from llava.serve.web.examples import EXAMPLES
from llava.serve.web.media import IMAGE, VIDEO, Medium, drawn_boards
from llava.serve.web.picture import Fate, caption, drawing, fate
from llava.serve.web.settings import Choice, Limits, Setting, command_line

DART = Choice("dart", "2", "pivots_visual=1 pivots_text=1 layer=1")
LIMITS = Limits(new_tokens=6, turns=2)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    file = tmp_path_factory.mktemp("image") / "image.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(file)
    return file


def begin(demo, image, *choices):
    return demo.begin(Setting("", choices), demo.open(IMAGE, image, str(image)))


def answer(demo, talk, question):
    return list(demo.ask(talk, question))


class TestAnswers:
    def test_each_column_equals_its_command_line(self, demo, image, folder, capsys):
        """Two turns, typed as the page says into the chat."""
        talk = begin(demo, image, DART, Choice("visionzip", "3"))
        for question in ("Is it red?", "And it's blue?"):
            answer(demo, talk, question)
            for column in talk.columns:
                line = command_line(column.choice, talk.medium.words, talk.questions, ["--model-path", str(folder)])
                typing, _, chat = line.rpartition(" | ")
                words = [*shlex.split(chat)[3:], "--max-new-tokens", "6", "--device", "cpu"]
                lines = "".join(f"{one}\n" for one in shlex.split(typing)[2:]) if typing else ""
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("sys.stdin", Typed(lines))
                    assert cli.main(words) == 0
                said = capsys.readouterr().out.strip("\n").split("\n")
                assert said[-1].strip() == column.turns[-1].text.strip()
                assert len(said) == (len(talk.questions) if typing else 1)

    def test_streams_column_by_column(self, demo, image):
        talk = begin(demo, image, DART)
        steps = demo.ask(talk, "Is it red?")
        assert [next(steps), next(steps)] == [0, 1]
        assert [column.turns[-1].status for column in talk.columns] == [WAITING, WAITING]
        texts: list = [[], []]
        for number in steps:
            texts[number].append(talk.columns[number].turns[-1].text)
            if number == 0:
                assert talk.columns[1].turns[-1].status == WAITING
        for said, column in zip(texts, talk.columns, strict=True):
            assert said[0] == "" and said[-1] == column.turns[-1].text == column.conversation.turns[-1][1]
            assert all(later.startswith(earlier) for earlier, later in zip(said[:-2], said[1:-1], strict=True))

    def test_numbers_are_those_of_the_run(self, demo, image):
        talk = begin(demo, image, DART)
        answer(demo, talk, "Is it red?")
        whole, pruned = (column.turns[0] for column in talk.columns)
        assert whole.status == pruned.status == DONE
        assert whole.report.final == [4] and pruned.report.final == [3]
        assert pruned.report.cache_bytes < whole.report.cache_bytes == whole.report.cache_bytes_unpruned
        assert pruned.answer.n_tokens == 6 and 0 < pruned.answer.first_token_seconds < pruned.answer.seconds
        rest = pruned.answer.seconds - pruned.answer.first_token_seconds
        assert pruned.tokens_per_second == pytest.approx(5 / rest)
        assert replace(pruned, answer=replace(pruned.answer, n_tokens=1)).tokens_per_second is None

    def test_the_model_is_as_it_was(self, demo, image):
        before = dict(vars(demo.model))
        answer(demo, begin(demo, image, DART, Choice("tome", "2")), "Hi")
        assert dict(vars(demo.model)) == before

    def test_a_column_that_fails_says_why_and_the_others_go_on(self, demo, image):
        talk = begin(demo, image, Choice("dart", "2", "pivots_visual=99"), DART)
        answer(demo, talk, "Hi")
        assert [column.turns[-1].status for column in talk.columns] == [DONE, FAILED, DONE]
        assert "pivots_visual" in talk.columns[1].turns[-1].problem
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(demo.model, "generate", lambda **_: 1 / 0)
            answer(demo, talk, "Hi again")
        assert all("ZeroDivisionError" in column.turns[-1].problem for column in talk.columns[::2])

    def test_stopping(self, demo, image):
        talk = begin(demo, image, DART)
        steps = demo.ask(talk, "Hi")
        while not talk.columns[0].turns or not talk.columns[0].turns[-1].text:
            next(steps)
        steps.close()
        assert talk.broken and not talk.goes_on((DART,), IMAGE, str(image))
        assert talk.columns[1].turns[-1].status == WAITING
        again = begin(demo, image, DART)  # the model is free again
        answer(demo, again, "Hi")
        assert not again.broken and again.goes_on((DART,), IMAGE, str(image))
        assert not again.goes_on((replace(DART, budget="3"),), IMAGE, str(image))
        assert not again.goes_on((DART,), IMAGE, "b.png") and not again.goes_on((DART,), VIDEO, str(image))
        again.columns[1].turns[-1].problem = STOPPED
        assert again.broken

    def test_stop_ends_all_columns_at_the_next_token(self, demo, image):
        talk = begin(demo, image, DART)
        stops: list = [None, talk.stop, talk.stop]
        ended: list = []

        def run(*_):
            stop = stops.pop(0)
            ended.append(stop and stop())

        hook = demo.model.register_forward_pre_hook(run)
        try:
            answer(demo, talk, "Hi")
        finally:
            hook.remove()
        assert ended == [None, [0, 1]]  # pressed while the second token was computed, which was the last
        assert [column.turns[-1].problem for column in talk.columns] == [STOPPED, STOPPED]
        assert talk.broken and talk.stop() == []
        assert talk.columns[0].conversation.turns == []

    def test_an_answer_that_nobody_wants_leaves_no_trace(self, demo, image):
        conversation = begin(demo, image).columns[0].conversation
        asked: list = []
        with pytest.raises(Interrupted):
            conversation.ask("Hi", wanted=lambda: len(asked) < 3 and not asked.append(1))
        assert len(asked) == 3 and conversation.turns == []
        assert conversation.ask("Hi", wanted=lambda: True).n_tokens == LIMITS.new_tokens


class Typed:
    """Standard input that is no terminal."""

    def __init__(self, text):
        self.lines = text.splitlines(keepends=True)

    def isatty(self):
        return False

    def __iter__(self):
        return iter(self.lines)


class TestRefusals:
    def test_questions(self, demo, image):
        talk = begin(demo, image, DART)
        for question, words in (("", "empty"), ("  ", "empty"), ("x" * 501, "500 are allowed")):
            with pytest.raises(BadInput, match=words):
                answer(demo, talk, question)
        assert talk.questions == []
        answer(demo, talk, "What is <image>?")
        assert "cannot contain <image>" in talk.columns[0].turns[0].problem
        answer(demo, talk, "Hi")
        with pytest.raises(BadInput, match="2 questions already"):
            answer(demo, talk, "Hi")

    def test_methods_and_budgets(self, demo, image):
        with pytest.raises(ConfigurationError) as caught:
            begin(demo, image, Choice("dartt", "2"), Choice("dart", "0"))
        assert len(caught.value.problems) == 2

    def test_images(self, demo, tmp_path):
        def file(name, content):
            (tmp_path / name).write_bytes(content)
            return tmp_path / name

        wide = tmp_path / "wide.png"
        Image.new("1", (5000, 4000)).save(wide)
        heavy = file("heavy.png", b"x" * (LIMITS.image_bytes + 1))
        for path, words in (
            (None, "There is no image"),
            (file("words.txt", b"no image at all"), "not an image of a known kind"),
            (file("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"), "not an image"),
            (file("cut.jpg", EXAMPLES["stars"].file.read_bytes()[:9000]), "damaged or cut short"),
            (wide, "5000 x 4000 pixels: 16 million are allowed"),
            (heavy, "10.0 MB: 10 MB are allowed"),
        ):
            with pytest.raises((BadInput, MissingData), match=words) as caught:
                demo.open(IMAGE, path)
            assert str(tmp_path) not in str(caught.value)

    def test_only_methods_that_work_with_the_model_are_offered(self, demo):
        offered = demo.methods()
        assert {"dart", "fastv", "visionzip", "tome"} <= set(offered) and "none" not in offered
        assert "globalcom2" not in offered  # needs an image cut into tiles


class TestPieces:
    def test_picture(self, demo, image):
        talk = begin(demo, image, DART)
        answer(demo, talk, "Is it red?")
        report = talk.columns[1].turns[0].report
        kept = report.indices[0][0].tolist()
        known = fate(report)
        assert known.gone == [None if token in kept else 1 for token in range(4)] and known.unplaced == 0
        html = drawing(talk.boards, known)
        assert html.count("<rect") == 4 and html.count('class="gone"') == 1 and 'viewBox="0 0 2 2"' in html
        assert html.count("pivot score") == 4 and "leaves before layer 1" in html
        assert "3</b> of 4 tokens" in caption(talk.boards, known)
        assert drawing(talk.boards, None).count("<rect") == 0

    def test_colours_go_by_rank(self):
        board = Board(np.zeros((4, 4, 3), np.uint8), np.arange(4).reshape(2, 2))
        known = Fate([None, None, 3, None], {0: 1e-6, 1: 1e-6, 2: 2e-6, 3: 0.9}, "score", 0, 4.0)
        html = drawing([board], known)
        assert [piece.partition('"')[0] for piece in html.split('data-s="')[1:]] == ["0", "0", "50", "99"]
        assert "data-s" not in drawing([board], replace(known, scores={0: 1.0, 1: 1.0}))

    def test_merged_and_resized(self, demo, image):
        talk = begin(demo, image, Choice("visionzip", "3", "contextual=1"), Choice("smaller_image", "1"))
        answer(demo, talk, "Is it red?")
        merged, smaller = (fate(column.turns[0].report) for column in talk.columns[1:])
        assert merged.unplaced >= 1 and "merged" in caption(talk.boards, merged)
        assert "<b>1</b> of 4 tokens" in caption(talk.boards, smaller, smaller=True)
        html = drawing(talk.boards, smaller, talk.columns[2].method.resized)
        assert 'width="1" height="1"' in html and "<rect" not in html

    def test_words_of_visitors_are_never_markup(self, demo, image):
        evil = "<img src=x onerror=alert(1)>"
        talk = begin(demo, image, DART)
        talk.medium, talk.setting = replace(talk.medium, name=evil), replace(talk.setting, question=f"'\"{evil}")
        answer(demo, talk, evil.replace("image", ""))
        talk.columns[0].turns[0].text = evil
        talk.columns[1].turns[0].problem, talk.columns[1].turns[0].status = evil, FAILED
        pieces = [cards.head(replace(talk.columns[1], choice=Choice(evil, evil)))]
        pieces += [cards.head(column) + cards.conversation(column.turns) for column in talk.columns]
        pieces += [cards.reproduce(talk, [evil]), cards.message(evil)]
        assert all("<img" not in piece and "&lt;img" in piece for piece in pieces)

    def test_families_whose_tokens_stand_nowhere_known_show_the_image(self, demo, monkeypatch):
        def refuse(*_):
            raise BadInput("not known")

        monkeypatch.setattr("llava.serve.web.media.boards", refuse)
        medium = Medium("a.png", Image.new("RGB", (8, 4)), "a.png")
        (board,) = drawn_boards(demo.model, demo.processor, medium)
        report_like = type("R", (), {"visual": [3], "steps": [], "final": [3], "mean_over_layers": [3.0], "method": ""})
        html = drawing([board], fate(report_like))
        assert 'viewBox="0 0 8 4"' in html and "<rect" not in html


def test_warm_up_leaves_nothing(demo):
    demo.warm_up()
    assert torch.is_grad_enabled()
