"""What an operator of vLLM may ask for, and the sentences for what cannot be served; no vLLM needed."""

import json
import shlex
from types import SimpleNamespace

import pytest
import torch

from llava.errors import BadInput, ConfigurationError
from llava.model.conversation import VICUNA_V1
from llava.reduction import registry
from llava.reduction.image import TOWER, BeforeLLM, Encoder, Kept
from llava.serve.vllm import CLASSES, __main__, chat, overrides, settings
from llava.serve.vllm.choosing import choose, n_places, state
from tests.model import qwen_vl_folder
from tests.reduction import images


def model_config(given, kind="llava"):
    return SimpleNamespace(hf_overrides=given, hf_config=SimpleNamespace(model_type=kind))


def test_overrides_come_back_as_the_method():
    given = overrides("llava", "divprune", keep=0.25, variant="distinct")
    assert given["architectures"] == ["ReducedLlavaForConditionalGeneration"]
    typed = json.loads(json.dumps(given))  # as from the command line
    assert settings.of_model(model_config(typed)) == registry.create("divprune", keep=0.25, variant="distinct")


def test_every_architecture_has_a_class():
    assert set(CLASSES) == set(settings.ARCHITECTURES.values())


@pytest.mark.parametrize("name", registry.names())
def test_a_method_is_served_or_refused_with_those_that_are(name):
    for kind in settings.ARCHITECTURES:
        servable = settings.servable(kind)
        assert {"dart_features", "divprune", "uniform", "pooling"} <= set(servable)
        assert ({"fastervlm", "visionzip"} <= set(servable)) == (kind == "llava")
        if name in servable or name == "none":
            assert settings.method_of({"method": name}, kind) == registry.create(name)
            continue
        with pytest.raises(ConfigurationError, match=f"{name}.*vLLM can serve for {kind}: .*dart_features"):
            overrides(kind, name)


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("llava", {"method": "dart", "keep": 64}, "'dart' acts inside the language model.*after layer 2"),
        ("llava", {"method": "visionzip+dart"}, "vLLM takes one method"),
        ("llava_next", {"method": "fastervlm"}, "'fastervlm' reads the attention.*LLaVA-1.5 only"),
        ("llava", {"method": "tome"}, "'tome' changes what the vision tower computes"),
        ("llava", {"method": "prumerge"}, "'prumerge' decides by the image how many"),
        ("llava", {"method": "divprune", "positions": "original"}, "positions='original'.*without gaps"),
        ("llava", {"method": "dart_feature"}, "Did you mean 'dart_features'"),
        ("llava", {"method": "divprune", "kept": 3}, "no option 'kept'"),
        ("internvl", {"method": "divprune"}, "kind 'internvl'.*llava, llava_next, qwen2_vl"),
    ],
)
def test_mistakes_are_told(kind, given, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        overrides(kind, **given)


def test_qwen_positions_are_original_either_way():
    assert overrides("qwen2_vl", "divprune", positions="original")


def test_settings_are_read_from_the_operator_only():
    config = model_config({})
    config.hf_config.visual_tokens = {"method": "divprune"}  # a checkpoint's config.json
    with pytest.raises(ConfigurationError, match="--hf-overrides"):
        settings.of_model(config)
    with pytest.raises(ConfigurationError, match="has to hold the method"):
        settings.of_model(model_config({settings.KEY: "divprune"}))


def test_a_method_of_ones_own_is_read_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    file = tmp_path / "firsts.py"
    file.write_text(
        '"""First tokens."""\n'
        "from dataclasses import dataclass\nimport torch\nfrom llava.reduction import BeforeLLM, Kept\n\n"
        "@dataclass(frozen=True)\nclass Firsts(BeforeLLM):\n"
        '    """Keep the first tokens."""\n\n'
        "    def select_image(self, image):\n        return Kept(torch.arange(self.asked(image.n_visual)))\n"
    )
    given = overrides("llava", "firsts", method_file=str(file), keep=3)
    method = settings.of_model(model_config(given))
    assert choose(method, state(torch.arange(10.0)[:, None])).values.flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", settings.servable("llava"))
def test_choices_are_those_of_the_method(name):
    method, image = registry.create(name, keep=7), images.image(side=(6, 6))
    kept, due = choose(method, image), method.select_image(image)
    assert len(kept.values) == n_places(method, 36) == 7
    values = image.features[due.indices] if due.values is None else due.values
    assert torch.equal(kept.values, image.project(values) if due.space == TOWER else values)


def test_fewer_tokens_than_the_budget_go_on_whole():
    features = torch.randn(5, 4)
    for method in (registry.create("dart_features", keep=9), registry.create("none")):
        assert torch.equal(choose(method, state(features)).values, features)


def test_another_number_than_announced_is_refused():
    class Wrong(BeforeLLM):
        name = "wrong"

        def select_image(self, image):
            return Kept(torch.arange(2))

    with pytest.raises(BadInput, match="kept 2 tokens of 9.*announced 4"):
        choose(Wrong(keep=4), state(torch.randn(9, 3)))


def test_all_that_is_servable_acts_before_the_model():
    for name in settings.servable("llava"):
        assert issubclass(registry.get(name), BeforeLLM) and not issubclass(registry.get(name), Encoder)


# ------------------------------------------------------------------------------------------------- the server's command


def shown(capsys, *words):
    assert __main__.main([*words[:1], "--show", *words[1:]] if words else ["--show"]) == 0
    return shlex.split(capsys.readouterr().out)


def value(words, flag):
    return words[words.index(flag) + 1]


def test_the_command_for_the_embedded_model(capsys):
    words = shown(capsys, "--keep=64", "--set", "pivots=4", "--", "--port", "9000")
    assert words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"] and words[-2:] == ["--port", "9000"]
    assert json.loads(value(words, "--hf-overrides")) == overrides(
        "llava", "dart_features", keep=64, pivots=4, positions="renumbered"
    )
    assert value(words, "--served-model-name") == "llava-nano"
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment().from_string(value(words, "--chat-template"))
    turns = [("<image>\nWhat?", 'A "sign".'), ("Where?", None)]
    messages = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": 'A "sign".'}]
    messages.append({"role": "user", "content": "Where?"})
    assert template.render(messages=messages, bos_token="<s>") == "<s>" + VICUNA_V1.render(turns)
    system = [{"role": "system", "content": "Be brief."}, messages[-1]]
    assert template.render(messages=system, bos_token="") == "Be brief. USER: Where? ASSISTANT:"


def test_checkpoints_with_a_template_keep_it(tmp_path, capsys):
    folder = qwen_vl_folder.write_checkpoint(tmp_path / "qwen")
    (folder / "chat_template.json").write_text("{}")
    words = shown(capsys, f"--model-path={folder}", "--method", "divprune", "--keep", "0.5")
    assert "--chat-template" not in words and value(words, "--model") == str(folder)
    assert json.loads(value(words, "--hf-overrides"))["architectures"] == ["ReducedQwen2VLForConditionalGeneration"]


def test_mistakes_of_the_command_are_told_together(capsys):
    assert __main__.main(["--method", "dart", "--", "--model", "x"]) == 2
    text = capsys.readouterr().err
    assert "2 mistakes" in text and "--model is made from" in text and "acts inside the language model" in text


def test_a_template_needs_no_opening():
    from dataclasses import replace

    assert "{{ bos_token }}" in chat.chat_template(replace(VICUNA_V1, opening=""))
