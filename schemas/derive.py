"""The Avro record of an event kind, derived from its model: how a new .avsc file is made.

The files in avro/ are what events are written with; a test holds them equal to the models.
"""

import json
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from madlog.schemas.events import Event

__all__ = ("NAMESPACE", "avro_schema", "avro_text")

NAMESPACE = "madlog"

_PRIMITIVES = {str: "string", int: "long", float: "double", bool: "boolean", bytes: "bytes"}


def avro_schema(model: type[Event]) -> dict[str, Any]:
    """Return the Avro record of a kind: its fields in the order of the model."""
    schema: dict[str, Any] = _Names().record(model)
    return schema


def avro_text(model: type[Event]) -> str:
    """Return the Avro record of a kind as the text of its .avsc file."""
    return json.dumps(avro_schema(model), indent=2) + "\n"


class _Names:
    """The named types met so far: Avro defines one at its first use and refers to it after."""

    def __init__(self) -> None:
        self._records: set[str] = set()
        self._enums: dict[tuple[str, ...], str] = {}

    def record(self, model: type[BaseModel]) -> Any:
        name = f"{NAMESPACE}.{model.__name__}"
        if name in self._records:
            return name
        self._records.add(name)
        fields = [self._field(model, key, info) for key, info in model.model_fields.items()]
        return {"type": "record", "name": name, "fields": fields}

    def _field(self, model: type[BaseModel], name: str, info: FieldInfo) -> dict[str, Any]:
        avro_type = self._type(info.annotation, _enum_name(model, name))
        if name == "occurred_at":
            avro_type = {"type": avro_type, "logicalType": "timestamp-micros"}
        field: dict[str, Any] = {"name": name, "type": avro_type}
        if not info.is_required():
            default = info.get_default(call_default_factory=True, validated_data={})
            field["default"] = list(default) if isinstance(default, tuple) else default
        return field

    def _type(self, annotation: Any, enum_name: str) -> Any:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._type(args[0], enum_name)
        if origin is Literal:
            return self._enum(args, enum_name)
        if origin in (Union, types.UnionType):
            # None goes first, because Avro takes a union's default from its first branch.
            branches = sorted(args, key=lambda branch: branch is not types.NoneType)
            return [
                "null" if branch is types.NoneType else self._type(branch, enum_name)
                for branch in branches
            ]
        if origin is tuple:
            return {"type": "array", "items": self._type(args[0], enum_name)}
        if origin is dict:
            return {"type": "map", "values": self._type(args[1], enum_name)}
        if annotation in _PRIMITIVES:
            return _PRIMITIVES[annotation]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self.record(annotation)
        raise TypeError(f"{enum_name}: no Avro type stands for {annotation!r}, use one that has")

    def _enum(self, symbols: tuple[str, ...], enum_name: str) -> Any:
        # Equal symbols are one type: Sender.kind and participant_kind are both SenderKind.
        if symbols in self._enums:
            return self._enums[symbols]
        self._enums[symbols] = enum_name
        return {"type": "enum", "name": enum_name, "symbols": list(symbols)}


def _enum_name(model: type[BaseModel], field: str) -> str:
    """Return e.g. madlog.SenderKind for Sender.kind, and madlog.TimeSource in the envelope."""
    camel = "".join(word.capitalize() for word in field.split("_"))
    in_envelope = issubclass(model, Event) and field in Event.model_fields
    return f"{NAMESPACE}.{'' if in_envelope else model.__name__}{camel}"
