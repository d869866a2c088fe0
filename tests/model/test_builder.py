"""Loading: real on-disk layouts work, and every kind of damage is one sentence, never a random layer."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

import llava
from llava.errors import BadInput, CheckpointError, ConfigurationError
from llava.model import checkpoints
from tests.model.llava_folder import write_checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "llava")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "llava")


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_loads_the_unmodified_class_with_the_weights_of_the_file(folder):
    model, processor = llava.load(folder)
    assert type(model) is LlavaForConditionalGeneration and not model.training
    assert model.dtype == torch.float32 and model.device.type == "cpu"
    stored = load_file(folder / "model.safetensors")
    assert len(stored) == len(model.state_dict())
    projector = stored["multi_modal_projector.linear_1.weight"].float()
    assert torch.equal(model.model.multi_modal_projector.linear_1.weight, projector)
    assert processor.family == "llava" and processor.n_visual == 4


def test_same_logits_as_plain_transformers(folder):
    model, processor = llava.load(folder)
    plain = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor(processor.prompt("Is there a red circle?", 0))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain(**inputs).logits)


@pytest.mark.parametrize(
    ("asked", "got"), [("bfloat16", torch.bfloat16), ("fp16", torch.float16), ("auto", torch.float16)]
)
def test_dtype_by_name(folder, asked, got):
    assert llava.load(folder, dtype=asked)[0].dtype == got


def test_layers_placed_by_accelerate(folder):
    model, processor = llava.load(folder, device="auto")
    ids = processor(processor.prompt("Hi", 0))["input_ids"]
    assert ids.device == model.device and torch.isfinite(model(ids).logits).all()


def test_eager_attention(folder):
    assert llava.load(folder, attn_implementation="eager")[0].config._attn_implementation == "eager"


def test_shards_and_older_vision_names(original, tmp_path):
    """Published checkpoints say `vision_tower.vision_model.*`; newer transformers write it without."""
    folder = write_checkpoint(tmp_path / "sharded", shard_size="60KB")
    index_file = folder / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    assert len(set(index["weight_map"].values())) > 1

    def old(key):
        return key.replace("vision_tower.", "vision_tower.vision_model.")

    for shard in set(index["weight_map"].values()):
        weights = {old(key): value for key, value in load_file(folder / shard).items()}
        save_file(weights, folder / shard, metadata={"format": "pt"})
    index["weight_map"] = {old(key): shard for key, shard in index["weight_map"].items()}
    index_file.write_text(json.dumps(index))
    ours, expected = llava.load(folder)[0].state_dict(), llava.load(original)[0].state_dict()
    assert ours.keys() == expected.keys() and all(torch.equal(ours[key], expected[key]) for key in ours)


def test_missing_weight_is_named(folder):
    edit_weights(folder, lambda weights: weights.pop("language_model.model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"missing: .*layers\.1\.mlp\.up_proj\.weight"):
        llava.load(folder)


def test_unexpected_weight_is_named(folder):
    edit_weights(folder, lambda weights: weights.update({"language_model.model.adapter.weight": torch.ones(2)}))
    with pytest.raises(CheckpointError, match=r"unexpected: .*adapter\.weight"):
        llava.load(folder)


def test_layers_the_config_does_not_have_are_unexpected(folder):
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, text_config={**config["text_config"], "num_hidden_layers": 3})
    with pytest.raises(CheckpointError, match=r"unexpected: .*layers\.3"):
        llava.load(folder)


def test_wrong_shape_is_named_with_both_shapes(folder):
    edit_weights(folder, lambda weights: weights.update({"multi_modal_projector.linear_1.bias": torch.ones(7)}))
    with pytest.raises(CheckpointError, match=r"wrong shape: .*linear_1\.bias \(7,\) instead of \(32,\)"):
        llava.load(folder)


def test_foreign_names_do_not_become_a_random_model(folder):
    """transformers loads such a file without an error and initialises every layer."""
    weights = {f"foreign.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: .* more; unexpected: "):
        llava.load(folder)


def test_truncated_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        llava.load(folder)


def test_missing_shard(tmp_path):
    folder = write_checkpoint(tmp_path / "sharded", shard_size="60KB")
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks the weight files {shard.name}"):
        llava.load(folder)


def test_index_that_disagrees_with_the_shards(tmp_path):
    folder = write_checkpoint(tmp_path / "sharded", shard_size="60KB")
    index_file = folder / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    index["weight_map"].pop("language_model.lm_head.weight")
    index_file.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"not in the index: language_model\.lm_head\.weight"):
        llava.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: edit_config(f, model_type="bert"), "model_type 'bert'. Supported: .*'llava': LLaVA-1.5"),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
        (lambda f: (f / "model.safetensors").rename(f / "consolidated.pth"), "It has consolidated.pth"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin is damaged"),
        (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "has no processor_config.json"),
        (lambda f: (f / "preprocessor_config.json").write_text("{}"), "does not give 'image_mean'"),
        (lambda f: edit_config(f, text_config={"model_type": "nonsense"}), "cannot be loaded"),
    ],
)
def test_broken_folder(folder, change, message):
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        llava.load(folder)


def test_no_such_folder(tmp_path):
    with pytest.raises(CheckpointError, match="There is no folder"):
        llava.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is a file"):
        (tmp_path / "file").touch()
        llava.load(tmp_path / "file")


def test_hub_name_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="'nobody/nothing' is not a folder here and could not") as error:
        llava.load("nobody/nothing")
    assert "\n" not in str(error.value)


def test_embedded_model_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "EMBEDDED", tmp_path)
    with pytest.raises(CheckpointError, match="embedded model is not in this installation"):
        llava.load()


def test_all_wrong_options_together(folder):
    with pytest.raises(ConfigurationError) as error:
        llava.load(folder, device="abacus", dtype="float7", attn_implementation="magic", quantize="2bit")
    assert len(error.value.problems) == 4


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="is about environments without bitsandbytes")
def test_quantisation_without_its_package(folder):
    with pytest.raises(ConfigurationError, match="8bit needs the bitsandbytes package: pip install bitsandbytes"):
        llava.load(folder, quantize="8bit")


def test_eight_bits(folder, original):
    """Only the language model's layers are quantised: the tower, the projector and the head keep their precision."""
    pytest.importorskip("bitsandbytes", reason="the package (extra `quant`) is not installed")
    model, processor = llava.load(folder, quantize="8bit")
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if "Linear" in type(module).__name__}
    assert all((kind == "Linear8bitLt") == ("language_model.layers" in name) for name, kind in kinds.items())
    inputs = processor(processor.prompt("Is there a red circle?"), [[Image.new("RGB", (40, 30), (200, 10, 10))]])
    exact = llava.load(original)[0](**inputs).logits
    assert (model(**inputs).logits - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_device_and_device_map_exclude_each_other(folder):
    with pytest.raises(ConfigurationError, match="exclude each other"):
        llava.load(folder, device="cpu", device_map="auto")
    with pytest.raises(ConfigurationError, match="Unknown device_map 'everywhere'"):
        llava.load(folder, device_map="everywhere")
    model, processor = llava.load(folder, device_map="auto")
    assert processor.device == model.device


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_options_that_need_cuda(folder):
    with pytest.raises(ConfigurationError) as error:
        llava.load(folder, device="cuda", attn_implementation="flash_attention_2")
    assert len(error.value.problems) >= 1 and "no CUDA device" in str(error.value)
    with pytest.raises(ConfigurationError, match="flash-attn"):
        llava.load(folder, attn_implementation="flash_attention_2")


def test_checkpoint_errors_are_bad_input():
    assert issubclass(CheckpointError, BadInput) and CheckpointError("x").exit_code == 2
