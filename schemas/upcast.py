"""Upcasters: named functions that lift events of an old schema where Avro resolution cannot.

Avro fills added fields with defaults and drops removed ones; it cannot split a field in two or
make a part out of a text. Pass an `Upcasters` to `Schemas` to read such events.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from madlog.schemas.codec import Upcaster
from madlog.schemas.errors import SchemaError, Undecodable

__all__ = ("Upcasters",)


class Upcasters(Mapping[tuple[str, str], Upcaster]):
    """The upcasters of a program, by kind and the writer's fingerprint in hex."""

    def __init__(self) -> None:
        self._upcasters: dict[tuple[str, str], Upcaster] = {}

    def register(self, kind: str, from_fingerprint: str, upcaster: Upcaster) -> None:
        """Let `upcaster` lift events of one schema; it gets the fields as they were written.

        Raises SchemaError when that schema has an upcaster already.
        """
        key, name = (kind, from_fingerprint.lower()), upcaster.__name__
        if key in self._upcasters:
            raise SchemaError(
                f"schema {from_fingerprint} of {kind} has an upcaster already: "
                f"{self._upcasters[key].__name__}; drop {name} or the other"
            )

        def named(fields: dict[str, Any]) -> dict[str, Any]:
            try:
                return upcaster(dict(fields))
            except (LookupError, TypeError, ValueError) as error:
                raise Undecodable(
                    f"upcaster {name} could not lift a {kind} of schema {from_fingerprint}: "
                    f"{type(error).__name__}: {error}; correct the upcaster"
                ) from error

        named.__name__ = name
        self._upcasters[key] = named

    def __getitem__(self, key: tuple[str, str]) -> Upcaster:
        return self._upcasters[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._upcasters)

    def __len__(self) -> int:
        return len(self._upcasters)
