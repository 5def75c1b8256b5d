"""What DuckDB's parser made of a SELECT, as json_serialize_sql tells it."""

from collections.abc import Iterator
from typing import Any

__all__ = ("nodes",)


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield each object of a parsed tree, before those below it."""
    # Kept as a stack: an expression of some thousand terms nests as deep.
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            yield node
            stack.extend(node.values())
