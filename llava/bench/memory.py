"""`python -m llava.bench memory`: peak memory of an answer, and the bytes of the live cache.

On CUDA the peak is what torch's allocator held at once. On a CPU torch has no such number, so every method gets a
process of its own, and the peak is the most resident memory (pages in RAM) of that process above what it had when model
and prompt were ready: an upper bound, with work space of the kernels and what the C library did not give back. Beside
it stand the bytes of the tensors that operations made and that were alive at once.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llava.bench import results
from llava.bench.livebytes import peak_bytes
from llava.bench.options import Comparison, output_problems
from llava.bench.prefill import counts, title
from llava.bench.resident import ResidentMemory
from llava.bench.subject import Subject, build, device_of, environment
from llava.bench.trials import OK, OUT_OF_MEMORY, free_memory, is_out_of_memory
from llava.commandline import say, too_small, warn
from llava.errors import LlavaError, first_line
from llava.eval.screen import DASH, number, table
from llava.model import accounting
from llava.model.accounting import DecoderSize
from llava.reduction.base import Reduction

ALLOCATOR = "bytes that torch held on the device at once, above weights and prompt"
PROCESS = "resident memory of a process of its own, above what it had with model and prompt ready"


@dataclass(frozen=True)
class Memory(Comparison):
    """Measure peak memory and live cache bytes of methods and of the unpruned model."""

    new_tokens: int = 8
    """Tokens to generate, the first one (which ends the prefill) included."""
    output: Path | None = None
    """JSON file for the raw result."""

    def problems(self) -> list[str]:
        """Return everything that is wrong, known before a model is built."""
        return too_small(self, new_tokens=2) + super().problems() + output_problems(self.output)


@dataclass(frozen=True)
class Finding:
    """What one method gave: its row, and the line and the facts about the measurement; or why it gave none."""

    row: dict[str, Any]
    title: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


def run(options: Memory) -> None:
    """Measure, show, write."""
    methods = options.choice.build()
    if device_of(options.model).type == "cuda":
        subject = build(options.model, options.prompt)
        findings, complete = collect(methods, lambda method: examine(subject, method, options.new_tokens))
    else:
        findings, complete = collect(methods, lambda method: in_own_process(options, method))
    described = next((one for one in findings.values() if one.title), Finding({}))
    rows = [one.row for one in findings.values() if not one.refused]
    say(described.title or "Nothing could be measured.")
    for line in lines(rows):
        say(line)
    result = results.content(
        "memory",
        options,
        described.where,
        described.facts,
        rows,
        complete=complete,
        left_out={label: one.refused for label, one in findings.items() if one.refused},
    )
    results.finish(result, options.output)


def collect(methods: dict[str, Reduction], once: Callable[[Reduction], Finding]) -> tuple[dict[str, Finding], bool]:
    """Examine one method after the other; return label -> finding, and whether Ctrl-C did not come before the end."""
    findings: dict[str, Finding] = {}
    for label, method in methods.items():
        try:
            findings[label] = once(method)
        except KeyboardInterrupt:
            if not findings:
                raise
            return findings, False
        if findings[label].refused:
            warn(f"{label} is left out: {findings[label].refused}")
    return findings, True


def in_own_process(options: Memory, method: Reduction) -> Finding:
    """Return what a fresh process finds that runs this method only."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, options, method), daemon=True)
    process.start()
    sender.close()  # so that the end of the process is noticed
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return _too_large(method, f"the process ended with code {process.exitcode}")
    finally:
        process.terminate()
        process.join()


def _child(sender: Any, options: Memory, method: Reduction) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too, and ends this process
    try:
        subject = build(options.model, options.prompt)
    except LlavaError as error:
        sender.send(Finding({}, refused=str(error)))
        return
    sender.send(examine(subject, method, options.new_tokens))


def examine(subject: Subject, method: Reduction, new_tokens: int) -> Finding:
    """Answer with one method; return its row: peaks, and the cache at the end of the prefill in four ways."""
    free_memory()
    where = environment(subject.model)
    about = f"{title(subject, where)}, {new_tokens} new tokens"
    try:
        _wake_up(subject)
        return Finding(_row(subject, method, new_tokens), about, subject.facts, where)
    except LlavaError as error:
        return Finding({}, refused=str(error))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    free_memory()
    return _too_large(method, reason)


def _too_large(method: Reduction, reason: str) -> Finding:
    return Finding({"method": method.name, "status": OUT_OF_MEMORY, "reason": reason})


def _wake_up(subject: Subject) -> None:
    """Read a few tokens of text: what kernels need the first time they run belongs to no method."""
    with torch.inference_mode():
        subject.model(input_ids=subject.inputs["input_ids"][:, :1])


def _row(subject: Subject, method: Reduction, new_tokens: int) -> dict[str, Any]:
    caches: list[Any] = []
    device = subject.device
    with method(subject.model) as pruning:
        prefill_peak = _peak(device, lambda: caches.append(_generate(subject, 1)))
        report: Any = pruning.last
        row = {
            "method": method.name,
            "status": OK,
            "peak_means": ALLOCATOR if device.type == "cuda" else PROCESS,
            "peak_prefill_bytes": prefill_peak,
            "cache_bytes_from_counts": bytes_from_counts(subject, report),
            "cache_bytes_held": held_bytes(caches[0]),
            **counts(report),
        }
        before = _allocated(device)
        caches.clear()
        free_memory()
        row["cache_bytes_freed"] = None if before is None else before - (_allocated(device) or 0)
        peak = _peak(device, lambda: caches.append(_generate(subject, new_tokens)))
        row["cache_bytes_at_end"] = accounting.cache_bytes(caches[0])
        caches.clear()
        row["peak_tensor_bytes"] = peak_bytes(lambda: _generate(subject, new_tokens), device)
    known = [one for one in (prefill_peak, peak) if one is not None]
    return {**row, "peak_bytes": max(known, default=None)}


def _generate(subject: Subject, new_tokens: int) -> Any:
    """Generate so many tokens; return the cache."""
    with torch.inference_mode():
        output = subject.model.generate(
            **subject.inputs,
            do_sample=False,
            num_beams=1,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            return_dict_in_generate=True,
        )
    return output.past_key_values


def _peak(device: torch.device, run: Callable[[], Any]) -> int | None:
    """Return the peak of a run above what was there before; None if the system does not tell."""
    if device.type == "cuda":
        return peak_bytes(run, device)
    resident = ResidentMemory()
    run()
    return resident.grown()


def _allocated(device: torch.device) -> int | None:
    """Return the bytes of the tensors on a GPU; None on a CPU, where nobody counts them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def bytes_from_counts(subject: Subject, report: Any) -> int:
    """Return what keys and values need by the token counts of a report: tokens of every layer, text included."""
    size = DecoderSize.of(subject.family.decoder(subject.model).config)
    tokens = sum(
        round(size.layers * (mean + prompt - visual))
        for mean, prompt, visual in zip(report.mean_over_layers, report.prompt, report.visual, strict=True)
    )
    return tokens * 2 * size.kv_heads * size.head * subject.model.dtype.itemsize


def held_bytes(cache: Any) -> int:
    """Return the bytes of the storages behind a cache: more than its tensors show if one is a part of a larger one."""
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table for the screen; megabytes are 10^6 bytes."""
    header = [
        "method",
        "kept",
        "peak MB",
        "of the prefill",
        "of tensors",
        "cache MB",
        "from counts",
        "held",
        "unpruned",
        "at the end",
    ]
    return table(header, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != OK:
        return [row["method"], DASH, row["status"], *[DASH] * 7]
    caches = ("", "_from_counts", "_held", "_unpruned", "_at_end")
    keys = ("peak_bytes", "peak_prefill_bytes", "peak_tensor_bytes", *(f"cache_bytes{name}" for name in caches))
    shown = [row[key] for key in keys]
    kept = f"{sum(row['final']) / len(row['final']):.0f}"
    return [row["method"], kept, *(number(None if one is None else one / 1e6, 1) for one in shown)]
