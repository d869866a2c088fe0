"""`--blank`: the model sees nothing, the prompt stays, and the run is another one than with images."""

import json

import llava
from llava.eval.__main__ import main


def test_blank_pixels_are_zeros_and_the_prompt_stays():
    from PIL import Image

    _, processor = llava.load()
    image = Image.new("RGB", (336, 336), (250, 10, 10))
    seen = processor(processor.prompt("What?"), [[image]])
    processor.blank = True
    unseen = processor(processor.prompt("What?"), [[image]])
    assert seen["pixel_values"].any() and not unseen["pixel_values"].any()
    assert seen["input_ids"].equal(unseen["input_ids"])
    assert seen["pixel_values"].shape == unseen["pixel_values"].shape


def test_blank_results_lie_beside_the_others(tmp_path, capsys):
    command = ["pope", "--method", "none", "--data", "mini", "--limit", "3", "--output", str(tmp_path)]
    assert main(command) == 0 and main([*command, "--blank"]) == 0
    records = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")]
    pixels = [record["configuration"].get("pixels") for record in records]
    assert len(pixels) == 2 and None in pixels and {"blank": True} in pixels
