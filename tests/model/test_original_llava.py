"""LLaVA's original checkpoints: the same model as the converted ones, and every mistake is named."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import llava
from llava.errors import CheckpointError
from tests.model.llava_folder import write_checkpoint
from tests.model.original_folder import write_original

KINDS = [(tiled, decoder) for tiled in (False, True) for decoder in ("llama", "mistral", "llama-3")]


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = [[noise(50, 30)], [noise(20, 20), noise(33, 90)], []]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """(converted, original) folders by kind, written once."""
    made = {}

    def pair(tiled=False, decoder="llama"):
        if (tiled, decoder) not in made:
            home = tmp_path_factory.mktemp("pair")
            converted = write_checkpoint(home / "converted", tiled=tiled, decoder=decoder)
            made[tiled, decoder] = (
                converted,
                write_original(converted, home / "original", tiled=tiled, decoder=decoder),
            )
        return made[tiled, decoder]

    return pair


@pytest.fixture
def folder(pairs, tmp_path):
    """A copy of the plain LLaVA-1.5 original with its tower beside it."""
    original = pairs()[1]
    shutil.copytree(original.parent / "clip-tiny", tmp_path / "clip-tiny")
    return shutil.copytree(original, tmp_path / "original")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def edit_config(folder, **values):
    file = folder / "config.json"
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def edit_shard(folder, change, number=0):
    file = sorted(folder.glob("*.bin"))[number]
    weights = torch.load(file, weights_only=True)
    index_file = folder / "pytorch_model.bin.index.json"
    index = json.loads(index_file.read_text())
    change(weights)
    torch.save(weights, file)
    kept = {key: name for key, name in index["weight_map"].items() if name != file.name}
    index_file.write_text(json.dumps({"weight_map": {**kept, **dict.fromkeys(weights, file.name)}}))


# ---------------------------------------------------------------------------------------------------- the same model


@pytest.mark.parametrize(("tiled", "decoder"), KINDS, ids=lambda value: str(value))
def test_original_equals_converted_equals_plain_transformers(pairs, tiled, decoder):
    converted, original = pairs(tiled, decoder)
    (theirs, processor), (ours, own) = llava.load(converted), llava.load(original)
    prompts = [processor.prompt(text, len(images)) for text, images in zip(("One?", "Two?", "Hi"), IMAGES, strict=True)]
    batch = processor(prompts, IMAGES)
    again = own(prompts, IMAGES)
    assert all(torch.equal(batch[name], again[name]) for name in batch) and set(batch) == set(again)
    plain = type(theirs).from_pretrained(converted, dtype=torch.float32).eval()
    if tiled:
        plain.config.image_grid_pinpoints = theirs.config.image_grid_pinpoints  # the official order, see the card
    real, vocabulary = batch["attention_mask"].bool(), json.loads((original / "config.json").read_text())["vocab_size"]
    expected = plain(**batch).logits[real]
    assert torch.equal(theirs(**batch).logits[real], expected)
    assert torch.equal(ours(**again).logits[real][:, :vocabulary], expected[:, :vocabulary])
    assert ours.config.text_config.vocab_size % 64 == 0 and type(ours) is type(theirs)
    ours, theirs = ours.config.text_config.to_dict(), theirs.config.text_config.to_dict()
    assert {key: value for key, value in ours.items() if theirs[key] != value}.keys() <= {"pad_token_id", "dtype"}


@pytest.mark.parametrize("decoder", ["llama", "mistral", "llama-3"])
def test_new_tokens_are_never_the_most_likely(pairs, decoder):
    model, processor = llava.load(pairs(decoder=decoder)[1])
    vocabulary = json.loads((pairs(decoder=decoder)[1] / "config.json").read_text())["vocab_size"]
    logits = model(**processor(processor.prompt("Is there a dog?", 1), [[noise(40, 40)]])).logits
    assert int(logits.argmax(-1).max()) < vocabulary


def test_templates_and_stops(pairs):
    for decoder, name, stop in (
        ("llama", "vicuna_v1", "</s>"),
        ("mistral", "mistral_instruct", "</s>"),
        ("llama-3", "llava_llama_3", "<|eot_id|>"),
    ):
        model, processor = llava.load(pairs(decoder=decoder)[1])
        stops = model.generation_config.eos_token_id
        assert processor.template.name == name
        assert processor.tokenizer.convert_tokens_to_ids(stop) in (stops if isinstance(stops, list) else [stops])


def test_safetensors_and_single_files_and_bundled_tower(pairs, tmp_path, offline):
    expected = llava.load(pairs()[1])[0].state_dict()
    for number, (kind, shards, bundled) in enumerate(
        (("safetensors", 2, True), ("safetensors", 1, False), ("bin", 1, True))
    ):
        home = tmp_path / str(number)
        folder = write_original(pairs()[0], home / "x", kind=kind, shards=shards, bundled=bundled)
        found = llava.load(folder)[0].state_dict()
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def test_tower_by_path(folder, tmp_path):
    shutil.move(tmp_path / "clip-tiny", tmp_path / "elsewhere")
    for name in (str(tmp_path / "elsewhere"), "../elsewhere"):
        edit_config(folder, mm_vision_tower=name)
        assert llava.load(folder)[1].n_visual == 4


def test_stored_dtype_is_kept_on_request(folder):
    assert llava.load(folder, dtype="auto")[0].dtype == torch.float16


def test_converted_checkpoint_in_pickled_files(pairs, tmp_path):
    """Older conversions were saved without safetensors."""
    folder = shutil.copytree(pairs()[0], tmp_path / "converted")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    ours, expected = llava.load(folder)[0].state_dict(), llava.load(pairs()[0])[0].state_dict()
    assert ours.keys() == expected.keys() and all(torch.equal(ours[key], expected[key]) for key in ours)


def test_model_type_llava_with_a_tower_is_original_too(folder):
    edit_config(folder, model_type="llava")
    assert llava.load(folder)[1].n_visual == 4


# --------------------------------------------------------------------------------------------------------- mistakes


def test_missing_and_extra_weights_are_named_as_in_the_file(folder):
    edit_shard(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight", None))
    edit_shard(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight", None), 1)
    edit_shard(folder, lambda weights: weights.update({"model.layers.9.mlp.up_proj.weight": torch.ones(2, 2)}))
    with pytest.raises(CheckpointError) as error:
        llava.load(folder)
    assert "missing: model.layers.1.mlp.up_proj.weight;" in str(error.value)
    assert "unexpected: model.layers.9.mlp.up_proj.weight." in str(error.value)


@pytest.mark.parametrize(
    "key", ["model.mm_projector.2.bias", "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
)
def test_every_part_is_missed_under_its_original_name(folder, key):
    for number in (0, 1):
        edit_shard(folder, lambda weights: weights.pop(key, None), number)
    with pytest.raises(CheckpointError, match=f"missing: {key}"):
        llava.load(folder)


def test_tower_without_a_weight(folder, tmp_path):
    file = tmp_path / "clip-tiny" / "pytorch_model.bin"
    weights = torch.load(file, weights_only=True)
    del weights["vision_model.encoder.layers.0.mlp.fc1.bias"]
    torch.save(weights, file)
    with pytest.raises(CheckpointError, match=r"missing: model\.vision_tower\.vision_tower\.vision_model\.encoder"):
        llava.load(folder)


def test_wrong_shape_is_named(folder):
    edit_shard(folder, lambda weights: weights.update({"model.mm_projector.0.bias": torch.ones(5)}))
    edit_shard(folder, lambda weights: weights.pop("model.mm_projector.0.bias", None), 1)
    with pytest.raises(CheckpointError, match=r"wrong shape: model\.mm_projector\.0\.bias \(5,\) instead of \(32,\)"):
        llava.load(folder)


class Program:
    """Would run a command when it is unpickled."""

    def __reduce__(self):
        return print, ("executed",)


def test_pickles_that_are_more_than_tensors_are_refused(folder, capsys):
    shard = sorted(folder.glob("*.bin"))[0]
    content = torch.load(shard, weights_only=True)
    for intruder, what in ((Program(), "would run code"), ("text", r"intruder \(str\)"), (7, r"intruder \(int\)")):
        torch.save({**content, "intruder": intruder}, shard)
        with pytest.raises(CheckpointError, match=f"refused: besides plain tensors it holds .*{what}"):
            llava.load(folder)
    torch.save([torch.ones(1)], shard)
    with pytest.raises(CheckpointError, match="refused: besides plain tensors it holds a list"):
        llava.load(folder)
    shard.write_bytes(pickle.dumps(Program(), protocol=2))
    with pytest.raises(CheckpointError, match="refused|damaged"):
        llava.load(folder)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-500], lambda data: data[:40], lambda data: b"", lambda data: b"<html>"]
)
def test_damaged_shard(folder, damage):
    shard = sorted(folder.glob("*.bin"))[1]
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{shard.name} is damaged or cut short") as error:
        llava.load(folder)
    assert "\n" not in str(error.value)


def test_missing_shard_and_index(folder):
    shard = sorted(folder.glob("*.bin"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks the weight files {shard.name}"):
        llava.load(folder)
    (folder / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        llava.load(folder)


def test_tower_that_is_nowhere(folder, tmp_path, offline):
    shutil.rmtree(tmp_path / "clip-tiny")
    with pytest.raises(
        CheckpointError, match="needs the vision tower tiny/clip-tiny: .*beside the checkpoint"
    ) as error:
        llava.load(folder)
    assert "\n" not in str(error.value)


def test_tower_of_another_kind(folder, tmp_path):
    (tmp_path / "clip-tiny" / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(CheckpointError, match="'siglip': the vision tower must be a CLIP model"):
        llava.load(folder)


def test_settings_that_cannot_be_read_are_all_named(folder):
    edit_config(folder, mm_projector_type="linear", mm_use_im_start_end=True, architectures=["LlavaMptForCausalLM"])
    with pytest.raises(CheckpointError) as error:
        llava.load(folder)
    for part in (
        "'LlavaMptForCausalLM' (read are: LlavaLlamaForCausalLM",
        "mm_projector_type 'linear'",
        "mm_use_im_start_end",
    ):
        assert part in str(error.value)


def test_config_without_a_tower(folder):
    edit_config(folder, mm_vision_tower=...)
    with pytest.raises(CheckpointError, match="does not say which vision tower"):
        llava.load(folder)


def test_grid_that_is_no_list(pairs, tmp_path):
    folder = write_original(pairs(True)[0], tmp_path / "x", tiled=True, image_grid_pinpoints="(1x1),...,(6x6)")
    with pytest.raises(CheckpointError, match="is not a list of pairs"):
        llava.load(folder)
