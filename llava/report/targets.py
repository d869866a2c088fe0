"""Which model tables and figures speak about, how it is loaded, and which results are its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import BadData, BadInput
from llava.eval import identity
from llava.loadoptions import EMBEDDED
from llava.report.cells import Source, Target, decoder_layers

if TYPE_CHECKING:
    from llava.eval.asking import LoadedModel

Record = Mapping[str, Any]


def target_of(source: Source, results: Sequence[Record]) -> Target:
    """Return the model that is meant: the one named, else the embedded one or the only one there are results of.

    Nothing is loaded: the checkpoint's config.json or, where the checkpoint is not at hand, the results tell enough.

    Raises:
        BadInput: results of several models are there, and none is named.
        BadData: the named checkpoint is no folder, and there are no results of it.
        CheckpointError: the named checkpoint is not there and has no results.
    """
    from llava.model import checkpoints
    from llava.model.families import FAMILIES, family_for

    path = source.model.model_path
    names = {record["model"]["path"] for record in results}
    if path is None and not source.run and names and EMBEDDED not in names:
        if len(names) > 1:
            raise BadInput(
                f"There are results of several models ({', '.join(sorted(names))}): name one with --model-path."
            )
        path = names.pop()
    name = EMBEDDED if path is None else Path(path).resolve().name
    own = [record for record in results if record["model"]["name"] == name]
    layers = next((n for n in map(decoder_layers, own) if n), None)
    if path is not None and own and not Path(path).is_dir():
        family = {family.name: family for family in FAMILIES}.get(own[0]["model"]["family"])
    elif path is not None and not Path(path).is_dir() and not source.run and not source.dry_run:
        raise BadData(  # nothing is fetched for a table that would stay empty
            f"{source.results} holds no results of {path}: add --run to compute them, or name another folder."
        )
    else:
        folder = checkpoints.find_folder(path)
        config = checkpoints.read_json(folder / "config.json")
        family = family_for(folder, config)
        layers = {**config, **config.get("text_config", {})}.get("num_hidden_layers", layers)
    if family is None:
        raise BadInput(f"The results of {name} are of a family this version does not know.")
    return Target(name, path, family.name, family.budget_rule, layers, "video" in family.inputs, source.val)


def load(source: Source, target: Target) -> LoadedModel:
    """Load the model as the source says."""
    from llava.eval.asking import LoadedModel

    model, processor = replace(source.model, model_path=target.path).load()
    return LoadedModel(model, processor, target.path or EMBEDDED, identity.weights_digest(model))


def own_results(source: Source, target: Target, results: Sequence[Record], loaded: LoadedModel | None) -> list[Record]:
    """Return the results of the model that is meant.

    Args:
        loaded: the model itself, if it is loaded: then weights, precision, kernel and pixels have to be its own.

    Raises:
        BadInput: results of several weights are there, and none are named.
    """
    mine = [record for record in results if record["model"]["name"] == target.name]
    wanted: dict[str, Any] = {"dtype": source.model.dtype, "attention": source.model.attn_implementation}
    if loaded is not None:
        wanted.update(identity.hardware(loaded.model))
        pixels = loaded.processor.settings() or None
        mine = [record for record in mine if configured(record, "pixels") == pixels]
    for name in ("dtype", "attention"):
        mine = [record for record in mine if wanted[name] is None or record[name] == wanted[name]]
    if source.fresh:
        now = identity.code_digest()
        mine = [record for record in mine if configured(record, "code") == now]
    digest = source.weights if loaded is None else loaded.digest
    digests = Counter(record["model"]["weights_digest"] for record in mine)
    if digest is None and len(digests) > 1:
        listed = ", ".join(f"{one} ({count} results)" for one, count in digests.items())
        raise BadInput(f"There are results of several weights of {target.name}: {listed}. Add --weights DIGEST.")
    return [record for record in mine if digest is None or record["model"]["weights_digest"].startswith(digest)]


def several_weights(target: Target, results: Sequence[Record]) -> bool:
    """Whether there are results of several weights of a model."""
    return len({r["model"]["weights_digest"] for r in results if r["model"]["name"] == target.name}) > 1


def configured(record: Record, name: str) -> Any:
    """Return a part of the configuration that decided the predictions of a result."""
    return record.get("configuration", {}).get(name)
