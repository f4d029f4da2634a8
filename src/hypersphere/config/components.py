"""Components: config nodes that name a class or function by `_target_`, checked by its signature.

The signature is the schema, so that no second list of parameters has to be kept in step:

* keyword-only parameters are the configuration, their annotations give type and range;
* one without a default belongs to every recipe and must be stated in the YAML;
* one with a default was added later or is neutral: while it has its default it stays out of the
  run's identity, so that adding it orphans no finished run;
* a parameter that another one tells all about (a file whose hash is stated) stays out of it too:
  an attribute `told_by` maps the telling one to those;
* positional parameters (`dim`, `num_classes`, ...) are supplied by the program;
* an attribute `check_together` checks what depends on several values (ValueError).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

import pydantic
from hydra.utils import get_object

from hypersphere import paths
from hypersphere.errors import UserError, did_you_mean

RESERVED = ("_target_", "name")


@dataclass(frozen=True)
class Component:
    """A checked config node.

    name: stable name of the component; identity rests on it, so moving the class orphans nothing.
    target: the class or function that `_target_` names.
    params: checked keyword parameters, numbers in their declared type.
    """

    name: str
    target: Callable[..., Any]
    params: dict[str, Any]

    def build(self, *args: Any) -> Any:
        """Call the target with the program's positional `args` and the configured parameters."""
        return self.target(*args, **self.params)

    def stated(self) -> dict[str, Any]:
        """The parameters that say something: no neutral ones, and none that another tells about."""
        neutral = {
            name: parameter.default for name, parameter in _keyword_parameters(self.target).items()
        }
        told = getattr(self.target, "told_by", {}).items()
        silent = {name for teller, names in told if self.params[teller] for name in names}
        return {k: v for k, v in self.params.items() if v != neutral[k] and k not in silent}

    def identity(self) -> dict[str, Any]:
        """What the run's hash sees: name, semantic revision, and the parameters that are stated."""
        revision = getattr(self.target, "revision", 1)
        return {"name": self.name, "revision": revision, **self.stated()}


def check(node: Any, where: str) -> Component:
    """Turn a resolved config node into a `Component`.

    Raises UserError naming the key (`where.key`) and, for a misspelling, the nearest right one.
    """
    if not isinstance(node, Mapping) or any(key not in node for key in RESERVED):
        raise UserError(f"{where}: needs the keys _target_ and name, got {node!r}")
    try:
        target = _target(node["_target_"])
    except Exception as error:  # Hydra wraps every import problem differently
        why = " ".join(str(error).split())
        raise UserError(
            f"{where}._target_={node['_target_']}: cannot be imported ({why})"
        ) from error
    if not isinstance(node["name"], str) or not node["name"]:
        raise UserError(f"{where}.name={node['name']!r}: a component's stable name is a text")
    given = {key: value for key, value in node.items() if key not in RESERVED}
    params = check_values(_model(target), given, where)
    try:
        getattr(target, "check_together", _nothing)(**params)
    except ValueError as error:
        raise UserError(f"{where} ({node['name']}): {error}") from None
    return Component(node["name"], target, params)


@cache
def _target(path: str) -> Any:
    # Modules that a user's own configuration names may lie beside it.
    if (own := paths.own_conf_dir()) is not None and str(own) not in sys.path:
        sys.path.append(str(own))
    return get_object(path)


def _nothing(**_: Any) -> None:
    pass


def check_values(
    model: type[pydantic.BaseModel], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Check `given` against a strict pydantic model; one UserError line names the first bad key."""
    try:
        return model(**given).model_dump()
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        # Of a value that may have several types, the place names the type as well.
        extra = first["type"] == "extra_forbidden"
        loc = [str(p) for p in first["loc"] if extra or isinstance(p, int) or p.isidentifier()]
        key = ".".join(loc)
        full = f"{where}.{key}" if where else key
        if extra:
            hint = did_you_mean(str(first["loc"][-1]), _fields_at(model, first["loc"][:-1]))
            raise UserError(f"{full}: no such key{hint}") from None
        if first["type"] == "missing":
            raise UserError(f"{full}: must be stated in the configuration") from None
        message = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(f"{full}={first['input']!r}: {message}") from None


def _fields_at(model: type[pydantic.BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Field names of the model inside `model` at `place`; none where no model is."""
    for key in place:
        if str(key) not in model.model_fields:
            continue  # the key of a model in a table of them, or the name of a type
        annotation = model.model_fields[str(key)].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if inspect.isclass(a)]
        models = [a for a in inner if issubclass(a, pydantic.BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


@cache
def _keyword_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(target).parameters
    return {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


@cache
def _model(target: Callable[..., Any]) -> type[pydantic.BaseModel]:
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in _keyword_parameters(target).items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    config = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )
    return pydantic.create_model(target.__name__, __config__=config, **fields)
