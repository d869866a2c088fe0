"""The compiled path: the same tokens as without it, few graphs, and a way back from everything that goes wrong."""

import warnings

import pytest
import torch
from PIL import Image

import llava
from llava.model.fast import Fast
from llava.model.fast.compiler import Compiler
from llava.reduction import DART, Chain, FasterVLM, FastV, NoReduction, Random
from tests import tiny
from tests.families import TINY
from tests.model.qwen_vl_folder import write_checkpoint

METHODS = {"none": NoReduction(), "dart": DART(keep=8), "random": Random(keep=5, layer=1)}
UNCOMPILED = Fast(patience=10**9)  # the functions that would be compiled, run as they are


def generate(model, batch, n_new=4, **options):
    return model.generate(**batch, max_new_tokens=n_new, do_sample=False, pad_token_id=0, **options)


def both(model, batch, method, fast=UNCOMPILED, **options):
    """Tokens without and with the compiled path, and the pruning that ran it."""
    with method(model):
        plain = generate(model, batch, **options)
    with method(model, fast=fast) as pruning:
        compiled = generate(model, batch, **options)
    return plain, compiled, pruning


class Broken:
    """A compiler that does not work."""

    def __init__(self, error):
        self.error, self.called = error, 0

    def __call__(self, graph, inputs):
        self.called += 1
        raise self.error


class TestTheSameTokens:
    @pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision", "internvl", "smolvlm"])
    @pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
    def test_in_ragged_batches_and_alone(self, family, method):
        model = TINY[family].build()
        for rows in ((0,), (0, 1, 2)):
            plain, compiled, pruning = both(model, TINY[family].batch(rows)[0], method, eos_token_id=None)
            assert torch.equal(plain, compiled) and pruning.fast_reason is None
            counted = pruning._fast.compiler._met
            assert {size[0] for size in counted} == {"step"} | ({"tail"} if method.layers else set())

    @pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl"])
    def test_where_positions_have_three_dimensions(self, kind, tmp_path):
        model, processor = llava.load(write_checkpoint(tmp_path / kind, kind), device="cpu")
        images = [[Image.new("RGB", (64, 48), (9, 200, 40))], [Image.new("RGB", (40, 90), (200, 9, 40))]]
        batch = processor([processor.prompt("What is this?"), processor.prompt("And that one?")], images)
        plain, compiled, pruning = both(model, batch, DART(keep=2, budget="exact", pivots_visual=1), eos_token_id=None)
        assert torch.equal(plain, compiled) and pruning.fast_reason is None

    def test_of_minicpm_v(self):
        model, batch = TINY["minicpm_v"].build(), TINY["minicpm_v"].batch()[0]
        plain, compiled, _ = both(model, batch, DART(keep=8), eos_token_id=None)
        assert torch.equal(plain, compiled)

    @pytest.mark.parametrize(
        "method", [FasterVLM(keep=6), FastV(keep=3), Chain(FasterVLM(keep=9), DART(keep=4))], ids=repr
    )
    def test_with_the_eager_kernel_and_with_short_prompts(self, method):
        model, batch = TINY["llava"].build("eager"), TINY["llava"].batch()[0]
        plain, compiled, _ = both(model, batch, method, eos_token_id=None)
        assert torch.equal(plain, compiled)

    def test_when_samples_end_at_different_times(self):
        model, batch = TINY["llava"].build(), TINY["llava"].batch()[0]
        method = DART(keep=8)
        with method(model):
            free = generate(model, batch, 8, eos_token_id=None)
        end = int(free[0, batch["input_ids"].shape[1] + 2])  # sample 0 ends at its third token
        plain, compiled, _ = both(model, batch, method, n_new=8, eos_token_id=end)
        assert torch.equal(plain, compiled) and (plain[0, -4:] == 0).all()

    def test_of_sampling_and_of_processed_scores(self):
        model, batch = TINY["llava"].build(), TINY["llava"].batch((0, 1))[0]
        drawn = []
        for options in ({}, {"fast": UNCOMPILED}):
            with DART(keep=8)(model, **options):
                torch.manual_seed(3)
                drawn.append(
                    model.generate(**batch, max_new_tokens=5, do_sample=True, repetition_penalty=1.5, pad_token_id=0)
                )
        assert torch.equal(*drawn)

    def test_and_the_same_report(self):
        model, batch = TINY["llava"].build(), TINY["llava"].batch()[0]
        reports = []
        for options in ({}, {"fast": UNCOMPILED}):
            with DART(keep=8)(model, **options) as pruning:
                generate(model, batch)
            reports.append(pruning.last)
        plain, fast = reports
        assert (plain.kept, plain.final, plain.cache_bytes) == (fast.kept, fast.final, fast.cache_bytes)


class TestGraphs:
    def test_prompts_of_one_bucket_share_two_graphs(self):
        model = tiny.build("llava", num_hidden_layers=3)
        method, fast = DART(keep=8), Fast(backend="eager", patience=0)
        batches = [tiny.inputs(((n_before, tiny.IMAGE, 4),), seed=n_before) for n_before in (3, 9)]
        with method(model):
            plain = [generate(model, batch, eos_token_id=None) for batch in batches]
        with method(model, fast=fast) as pruning:
            compiled = [generate(model, batch, eos_token_id=None) for batch in batches]
        assert all(map(torch.equal, plain, compiled))
        assert {size[0] for size in pruning._fast.compiler._compiled} == {"tail", "step"}
        assert len(pruning._fast.compiler._compiled) == 2 and pruning.fast_reason is None

    def test_a_size_is_compiled_when_it_comes_again_and_only_so_many_are(self):
        said = []
        compiler = Compiler(Fast(backend="eager", patience=1, graphs=1, say=said.append), torch.device("cpu"))
        double = lambda x: 2 * x  # noqa: E731
        for _ in range(2):
            assert compiler.run(double, "a", torch.ones(2)).tolist() == [2, 2]
        assert list(compiler._compiled) == ["a"] and not said
        for _ in range(3):
            assert compiler.run(double, "b", torch.ones(3)).tolist() == [2, 2, 2]
        assert list(compiler._compiled) == ["a"] and len(said) == 1

    @pytest.mark.slow
    def test_inductor_gives_the_same_tokens(self):
        model, batch = TINY["llava"].build(), TINY["llava"].batch()[0]
        plain, compiled, pruning = both(model, batch, DART(keep=8), Fast(patience=0), eos_token_id=None)
        assert torch.equal(plain, compiled)
        assert pruning.fast_reason is None or "C++" in pruning.fast_reason  # no compiler on this machine


class TestTheWayBack:
    def test_a_compiler_that_fails_is_tried_once_and_told(self):
        broken, said = Broken(RuntimeError("no such machine")), []
        model, batch = tiny.build("llava", num_hidden_layers=3), tiny.inputs(((3, tiny.IMAGE, 4),))
        fast = Fast(backend=broken, patience=0, say=said.append)
        plain, compiled, pruning = both(model, batch, DART(keep=8), fast, eos_token_id=None)
        assert torch.equal(plain, compiled)
        assert broken.called == 1 and len(said) == 1 and "no such machine" in said[0]
        assert "no such machine" in pruning.fast_reason

    def test_a_step_that_fails_is_taken_again(self):
        """Whatever it had written into the cache."""
        compiler = Compiler(Fast(backend="eager", patience=0, say=lambda _: None), torch.device("cpu"))
        compiler._compile = lambda function: half_done
        written = torch.zeros(1)

        def half_done(x):
            written.add_(1)
            raise RuntimeError("lost")

        assert compiler.run(lambda x: x + written, "a", torch.ones(1), undo=written.zero_).item() == 1

    def test_an_interrupted_compilation_leaves_a_model_that_answers(self):
        broken = Broken(KeyboardInterrupt())
        model, batch = tiny.build("llava", num_hidden_layers=3), tiny.inputs(((3, tiny.IMAGE, 4),))
        with DART(keep=8)(model):
            plain = generate(model, batch, eos_token_id=None)
        with warnings.catch_warnings(record=True) as warned, DART(keep=8)(model, fast=Fast(broken, 0)) as pruning:
            warnings.simplefilter("always")
            with pytest.raises(KeyboardInterrupt):
                generate(model, batch, eos_token_id=None)
            assert torch.equal(generate(model, batch, eos_token_id=None), plain)
        assert "interrupted" in pruning.fast_reason and len([w for w in warned if "fast path" in str(w.message)]) == 1

    def test_out_of_memory_is_no_reason(self):
        compiler = Compiler(Fast(backend=Broken(torch.OutOfMemoryError("full")), patience=0), torch.device("cpu"))
        compiler._compile = lambda function: compiler.options.backend
        with pytest.raises(torch.OutOfMemoryError):
            compiler.run(None, "a", None, None)
        assert compiler.reason is None

    def test_models_that_cannot_be_compiled_say_why(self):
        said = []
        model, batch = TINY["gemma3"].build(), TINY["gemma3"].batch((0,))[0]
        plain, fast, pruning = both(model, batch, DART(keep=8), Fast(say=said.append), eos_token_id=None)
        assert torch.equal(plain, fast) and len(said) == 1 and "Gemma3TextModel" in said[0]

    @pytest.mark.parametrize(
        "options, word",
        [({"num_beams": 2}, "greedy"), ({"use_cache": False}, "cache"), ({"output_logits": True}, "output_logits")],
    )
    def test_calls_that_cannot_be_compiled_say_why(self, options, word):
        said = []
        model, batch = TINY["llava"].build(), TINY["llava"].batch((0,))[0]
        plain, fast, pruning = both(
            model, batch, DART(keep=8), Fast(patience=10**9, say=said.append), eos_token_id=None, **options
        )
        assert torch.equal(plain, fast) and len(said) == 1 and word in said[0] and pruning.fast_reason is None

    def test_the_model_is_given_back(self):
        model = TINY["llava"].build()
        with DART(keep=8)(model, fast=UNCOMPILED):
            assert "generate" in vars(model)
        assert "generate" not in vars(model)
