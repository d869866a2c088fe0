"""Video question sets: local metrics, joining of golds, official formulas on given replies, a judge on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llava.errors import BadData, BadInput, LlavaError
from llava.eval import judge
from llava.eval.__main__ import main
from llava.eval.benchmarks import get
from llava.eval.benchmarks.video_qa import contains
from tests.eval.small_data import read_lines, write_lines
from tests.eval.small_sets import write_json, write_video

MSVD = get("msvd_qa")


@pytest.fixture
def rows(tmp_path):
    return write_video(tmp_path, "videos", ".avi")


def test_local_metrics_of_the_card():
    texts = ["cook", "The man is going to cook pasta.", "A man is cooking."]
    assert [contains(text, "cook") for text in texts] == [True, True, False]
    assert contains("two dogs run", "Two dogs.") and not contains("dogs two", "two dogs") and not contains("x", "the")


def test_local_score_is_named_local(tmp_path, rows):
    rows[1]["text"], rows[2]["text"] = "There are two dogs.", "A violin."
    score = MSVD.score(tmp_path, rows)
    assert {metric.name: round(metric.value, 2) for metric in score.metrics} == {
        "local_contains": 66.67,
        "local_em": 33.33,
    }
    assert score.headline.name == "local_contains" and "not the GPT-judged" in score.notes[0]


def test_golds_are_joined_by_id_else_by_position(tmp_path, rows):
    path = tmp_path / "test_a.json"
    golds = json.loads(path.read_text())
    path.write_text(json.dumps(golds[::-1]))
    assert MSVD.score(tmp_path, rows).headline.value == 100
    path.write_text(json.dumps([{"answer": gold["answer"]} for gold in golds]))
    assert MSVD.score(tmp_path, rows[1:]).headline.value == 100
    path.write_text(json.dumps([{"answer": "x"}]))
    with pytest.raises(BadData, match="1 answers.*3 questions"):
        MSVD.score(tmp_path, rows)


def test_extensions_are_searched_in_order(tmp_path, rows):
    (tmp_path / "videos" / "video0.mov").write_bytes(b"")
    (tmp_path / "videos" / "video1.mp4").write_bytes(b"")
    questions = MSVD.questions(tmp_path)
    assert [question.image.suffix for question in questions] == [".avi", ".mp4", ".avi"]
    assert questions[0].media == "video" and questions[0].prompt == "what is a man doing 0?"


def test_video_llavas_form_is_written_and_read(tmp_path, rows):
    path = MSVD.export(tmp_path, rows, "ckpt")[0]
    assert path == tmp_path / "ckpt" / "merge.jsonl"
    line = {"id": "v_0_0", "question": "what is a man doing 0?", "answer": "cook", "pred": "cook"}
    assert read_lines(path)[0] == line
    assert MSVD.score(tmp_path, MSVD.foreign_answers(path)).headline.value == 100


def test_official_formulas_on_the_cards_replies():
    replies = [{"pred": p, "score": s} for p, s in (("yes", 5), ("Yes.", 4), ("no", 2), ("no", 0))]
    assert judge.official_numbers(replies) == (50, 2.75)
    assert judge.official_numbers([{"pred": "yes", "score": 4.8}]) == (100, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'pred': 'yes', 'score': 5}", {"pred": "yes", "score": 5}),
        ('Sure: {"pred": "No.", "score": 4.8}\n', {"pred": "No.", "score": 4.8}),
        ("yes, 5", None),
        ("{'pred': 'maybe', 'score': 5}", None),
        ("{'pred': 'yes'}", None),
        ("{'pred': 'yes', 'score': 'high'}", None),
        ("", None),
    ],
)
def test_replies_are_read(text, expected):
    if expected is None:
        with pytest.raises(judge.Unusable):
            judge.parse_reply(text)
    else:
        assert judge.parse_reply(text) == expected


class Endpoint(BaseHTTPRequestHandler):
    """Judges by equality; `script` holds status codes or texts that come first."""

    script: list = []
    seen: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers.get("Authorization"), body))
        first = self.script.pop(0) if self.script else None
        fields = dict(line.split(": ", 1) for line in body["messages"][1]["content"].splitlines()[:3])
        same = fields["Correct Answer"] == fields["Predicted Answer"]
        text = first if isinstance(first, str) else str({"pred": "yes" if same else "no", "score": 5 if same else 1})
        self.send_response(first if isinstance(first, int) else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": text}}]}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    Endpoint.script, Endpoint.seen = [], []
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_judge_and_score_commands(tmp_path, rows, endpoint, capsys):
    rows[2]["text"] = "violin"
    write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "key").write_text("secret\n")
    words = ["msvd_qa", "--answers-file", str(tmp_path / "a.jsonl"), "--data", str(tmp_path)]
    asked = ["--endpoint", endpoint, "--api-key-file", str(tmp_path / "key"), "--judge-model", "m"]
    assert main(["judge", *words, *asked]) == 0
    screen = capsys.readouterr().out
    assert "Accuracy (GPT): 66.67%" in screen and "Average score (GPT): 3.67" in screen and "secret" not in screen
    path, key, body = Endpoint.seen[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "m") and len(Endpoint.seen) == 3
    # Replies are kept; only a changed answer is asked about again. Scoring needs no network.
    assert main(["score", *words, "--replies", str(tmp_path / "a.jsonl.replies")]) == 0
    rows[0]["text"] = "bake"
    write_lines(tmp_path / "a.jsonl", rows)
    assert main(["score", *words, "--replies", str(tmp_path / "a.jsonl.replies")]) == 2
    assert "another prediction" in capsys.readouterr().err
    assert main(["judge", *words, *asked]) == 0 and len(Endpoint.seen) == 4


def test_busy_and_chatty_judges_are_asked_again(tmp_path, rows, endpoint):
    Endpoint.script = [429, "I think yes", 500]
    judge.judge_answers(MSVD, tmp_path, rows, tmp_path / "r", judge.Judge(endpoint, pause=0.001), workers=1)
    assert len(Endpoint.seen) == 6 and len(list((tmp_path / "r").iterdir())) == 3


def test_what_cannot_be_judged_is_listed(tmp_path, rows, endpoint):
    Endpoint.script = ["?", "?"]
    with pytest.raises(LlavaError, match="1 answers could not be judged(.|\n)*v_0_0"):
        asked = judge.Judge(endpoint, attempts=2, pause=0.001)
        judge.judge_answers(MSVD, tmp_path, rows, tmp_path / "r", asked, workers=1)
    assert len(list((tmp_path / "r").iterdir())) == 2


def test_refusals_end_at_once(tmp_path, rows, endpoint):
    Endpoint.script = [401] * 3
    with pytest.raises(BadInput, match="401(.|\n)*--api-key-file"):
        judge.judge_answers(MSVD, tmp_path, rows, tmp_path / "r", judge.Judge(endpoint), workers=1)
    assert len(Endpoint.seen) == 1
    with pytest.raises(BadInput, match="localhost"):
        judge.Judge("ftp://x")


def test_combined_results_of_the_original_are_read(tmp_path, rows):
    replies = {row["question_id"]: [{"pred": "yes", "score": 4}] for row in rows}
    write_json(tmp_path / "results.json", replies)
    score = judge.score(MSVD, tmp_path, rows, tmp_path / "results.json")
    assert (score.headline.name, score.headline.value, score.metrics[1].value) == ("gpt_accuracy", 100, 4)
    write_json(tmp_path / "results.json", {"v_0_0": "yes"})
    with pytest.raises(BadData, match="judge again"):
        judge.score(MSVD, tmp_path, rows, tmp_path / "results.json")


def test_only_video_sets_are_judged(tmp_path, capsys, rows):
    write_lines(tmp_path / "a.jsonl", rows)
    from tests.eval.small_sets import write_gqa

    gqa = write_gqa(tmp_path / "gqa")
    write_lines(tmp_path / "g.jsonl", gqa)
    words = ["gqa", "--answers-file", str(tmp_path / "g.jsonl"), "--data", str(tmp_path / "gqa"), "--replies", "x"]
    assert main(["score", *words]) == 2
    assert "needs no judge" in capsys.readouterr().err
