"""The register of methods: names to classes, creation that reports all mistakes at once, classes from a user's file."""

import dataclasses
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava.errors import ConfigurationError
from llava.reduction.base import OFFERED, LLMStage, Reduction, no_preset
from llava.reduction.checks import options_of, suggestion
from llava.reduction.image import BeforeLLM

_METHODS: dict[str, type[Reduction]] = {}
CHAINED, FIRST = "+", "first."
_USER_MODULE = "llava_user_method_"


def register(name: str) -> Callable[[type], type]:
    """Class decorator: make a method known under `name`.

    Raises:
        ConfigurationError: the class is no usable method (every reason is listed), or the name is taken.
    """

    def add(cls: Any) -> Any:
        problems = _class_problems(name, cls)
        if problems:
            raise ConfigurationError(*problems)
        cls.name = name
        _METHODS[name] = cls
        return cls

    return add


def names() -> list[str]:
    """Return the names of all known methods, sorted."""
    return sorted(_METHODS)


def get(name: str) -> type[Reduction]:
    """Return the class registered under `name`.

    Raises:
        ConfigurationError: unknown name; the message proposes near ones and lists all.
    """
    if name not in _METHODS:
        near = suggestion(str(name), names())
        raise ConfigurationError(f"Unknown method {name!r}.{near} Known: {', '.join(names())}.")
    return _METHODS[name]


def preset(name: str, setting: str) -> dict[str, Any]:
    """Return the options of a published setting of a method; of a chain, of its second method.

    Raises:
        ConfigurationError: unknown method or setting; the message lists those there are.
    """
    cls = get(name.rpartition(CHAINED)[2])
    if setting not in cls.presets:
        raise ConfigurationError(no_preset(cls, setting))
    return dict(cls.presets[setting])


def create(name: str, **options: Any) -> Reduction:
    """Return a method by name.

    Args:
        name: one of `names()`, or two joined by "+": the first acts before the language model, the second inside it.
        options: fields of the method's class, e.g. `keep=128, layer=2`; of a chain, those of the second method, and
            those of the first with the prefix "first.".

    Raises:
        ConfigurationError: unknown method, or all unknown options and wrong values together.
    """
    if CHAINED in name:
        return _chain(name, options)
    cls = get(name)
    options = {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
    known = [field.name for field in options_of(cls)]
    unknown = [option for option in options if option not in known]
    listing = f"Its options: {', '.join(known)}." if known else "It has no options."
    problems = [f"Method {name!r} has no option {option!r}.{suggestion(option, known)} {listing}" for option in unknown]
    try:
        method = cls(**{option: value for option, value in options.items() if option in known})
    except ConfigurationError as error:
        raise ConfigurationError(*problems, *error.problems) from None
    if problems:
        raise ConfigurationError(*problems)
    return method


def load_user_file(spec: str) -> str:
    """Register the method defined in a user's Python file and return its name.

    Args:
        spec: `path.py` when the file defines one method, `path.py:Class` to choose among several. The class passes
            through the checks of `register`; without that decorator it gets its own name in lower case.

    Raises:
        ConfigurationError: no such file, the file does not run, or the class is no usable method.
    """
    match = re.fullmatch(r"(.+\.py)(?::(\w+))?", spec)
    if not match or not Path(match[1]).is_file():
        raise ConfigurationError(f"No method file {spec!r}: give the path of a Python file, path.py or path.py:Class.")
    path, wanted = Path(match[1]).resolve(), match[2]
    for name in [name for name, cls in _METHODS.items() if _file_of(cls) == path]:
        del _METHODS[name]  # the file may have been edited since it was loaded
    module = _run(path)
    found = {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, Reduction) and cls.__module__ == module.__name__
    }
    if wanted and wanted not in found:
        has = (
            f"It defines: {', '.join(found)}."
            if found
            else "It defines no subclass of llava.reduction.InLLM or BeforeLLM."
        )
        raise ConfigurationError(f"{path.name} has no method class {wanted!r}.{suggestion(wanted, found)} {has}")
    if not wanted and len(found) != 1:
        how_many = f"defines {len(found)} methods ({', '.join(found)})" if found else "defines no method"
        raise ConfigurationError(
            f"{path.name} {how_many}: write a frozen dataclass that derives from llava.reduction.InLLM or BeforeLLM, "
            f"and name it as {path.name}:Class if there are several."
        )
    cls = found[wanted] if wanted else next(iter(found.values()))
    if _METHODS.get(cls.name) is not cls:
        register(cls.__name__.lower())(cls)
    return cls.name


def _chain(name: str, options: dict[str, Any]) -> Reduction:
    from llava.reduction.chain import Chain  # made of methods, so it cannot be imported before them

    first, _, second = name.partition(CHAINED)
    prefixed = {option.removeprefix(FIRST): value for option, value in options.items() if option.startswith(FIRST)}
    own = {option: value for option, value in options.items() if not option.startswith(FIRST)}
    made, problems = [], []
    for part, given in ((first, prefixed), (second, own)):
        try:
            made.append(create(part.strip(), **given))
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(*problems)
    return Chain(first=made[0], second=made[1])


def _run(path: Path) -> Any:
    name = _USER_MODULE + path.stem
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{path.name} does not run: {type(error).__name__}: {error}") from error
    return module


def _file_of(cls: type) -> Path | None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file).resolve() if file else None


def _class_problems(name: str, cls: Any) -> list[str]:
    label = f"Method class {getattr(cls, '__name__', cls)!r}"
    if not (inspect.isclass(cls) and issubclass(cls, Reduction)):
        return [f"{label} must derive from llava.reduction.InLLM or BeforeLLM."]
    problems = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        problems.append(f"Method name {name!r} is not usable: type small letters, digits and underscores.")
    if "__dataclass_fields__" not in vars(cls) or not vars(cls)["__dataclass_params__"].frozen:
        problems.append(f"{label} must be decorated with @dataclass(frozen=True), below @register.")
    if issubclass(cls, LLMStage) and cls.select is LLMStage.select:
        problems.append(f"{label} must define select(self, state), which returns the (R, L) mask of survivors.")
    if issubclass(cls, BeforeLLM) and cls.select_image is BeforeLLM.select_image:
        problems.append(f"{label} must define select_image(self, image), which returns what goes on of an image.")
    needs = getattr(cls, "needs", ())
    for need in () if isinstance(needs, property) else sorted(set(needs) - set(OFFERED)):
        problems.append(
            f"{label} needs {need!r}, which is not offered.{suggestion(need, OFFERED)} Offered: {', '.join(OFFERED)}."
        )
    for field in dataclasses.fields(cls) if not problems else ():
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{label}: option {field.name!r} needs a default.")
    taken = _METHODS.get(name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        problems.append(f"Method name {name!r} is already taken by {taken.__qualname__}.")
    return problems
