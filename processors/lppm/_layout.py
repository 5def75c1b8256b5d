"""A layered layout of a process: each step below what it follows, edges through gaps of the rows.

An edge that passes rows gets a place of its own in each of them, so that no box lies over it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from madlog.processors.lppm._trace import START
from madlog.processors.lppm.process import Process

__all__ = ("LOOP", "Box", "Plan", "placed")

LOOP = 64.0  # room to the right of a box whose step follows itself
_GAP_X, _GAP_Y = 26.0, 74.0
_PASS = 10.0
_SWEEPS = 8
_PORTS = 0.7  # the part of a box's side that edges meet

_Key = str | tuple[str, str, int]


class Box(NamedTuple):
    """Where something stands."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Its middle from left to right."""
        return self.x + self.width / 2


class Plan(NamedTuple):
    """The boxes and layers of steps, and the points that each edge goes through."""

    boxes: dict[str, Box]
    layers: dict[str, int]
    lines: dict[tuple[str, str], list[tuple[float, float]]]


def placed(process: Process, sizes: Mapping[str, tuple[float, float]]) -> Plan:
    """Place the steps of a process, whose boxes and that of the start have these sizes."""
    following: dict[str, list[str]] = defaultdict(list)
    for edge in sorted(process.edges, key=lambda one: (-one.count, one.step)):
        following[edge.after].append(edge.step)
    layers = _layers([START, *(step.key for step in process.steps)], following)
    # Each edge as what it passes from top to bottom, whichever way it points.
    chains: dict[tuple[str, str], list[_Key]] = {}
    rows: dict[int, list[_Key]] = defaultdict(list)
    for key in sorted(layers):
        rows[layers[key]].append(key)
    for edge in process.edges:
        if edge.after == edge.step:
            continue
        top, bottom = sorted((edge.after, edge.step), key=lambda key: layers[key])
        passed = [(edge.after, edge.step, at) for at in range(layers[top] + 1, layers[bottom])]
        for one in passed:
            rows[one[2]].append(one)
        chains[edge.after, edge.step] = [top, *passed, bottom]
    order = [rows[at] for at in sorted(rows)]
    _untangle(order, list(chains.values()))
    loops = {edge.step for edge in process.edges if edge.after == edge.step}
    boxes = _boxes(order, sizes, loops)
    lines = _lines(chains, boxes)
    for key in loops:
        box = boxes[key]
        x, y = box.x + box.width, box.y + box.height / 2
        lines[key, key] = [(x, y - 12), (x + LOOP / 2, y), (x, y + 12)]
    return Plan({key: box for key, box in boxes.items() if isinstance(key, str)}, layers, lines)


def _layers(keys: Sequence[str], following: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return how deep each step lies: the longest way to it, without going in circles."""
    forward: dict[str, list[str]] = defaultdict(list)
    finished: list[str] = []
    on_way: dict[str, bool] = {}
    for root in keys:
        if root in on_way:
            continue
        on_way[root] = True
        stack = [(root, iter(following.get(root, ())))]
        while stack:
            key, steps = stack[-1]
            for step in steps:
                if not on_way.get(step, False):  # else it would close a circle
                    forward[key].append(step)
                if step not in on_way:
                    on_way[step] = True
                    stack.append((step, iter(following.get(step, ()))))
                    break
            else:
                on_way[key] = False
                finished.append(key)
                stack.pop()
    layers = dict.fromkeys(keys, 0)
    for key in reversed(finished):
        for step in forward[key]:
            layers[step] = max(layers[step], layers[key] + 1)
    return layers


def _untangle(order: list[list[_Key]], chains: Sequence[Sequence[_Key]]) -> None:
    """Sort each row by where its neighbours stand, downwards and upwards in turn."""
    above: dict[_Key, list[_Key]] = defaultdict(list)
    below: dict[_Key, list[_Key]] = defaultdict(list)
    for chain in chains:
        for upper, lower in pairwise(chain):
            above[lower].append(upper)
            below[upper].append(lower)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for at in range(1, len(order)) if down else range(len(order) - 2, -1, -1):
            beside = order[at - 1 if down else at + 1]
            place = {key: (number + 0.5) / len(beside) for number, key in enumerate(beside)}
            middle = {}
            for number, key in enumerate(order[at]):
                found = [place[one] for one in near[key]]
                own = (number + 0.5) / len(order[at])
                middle[key] = sum(found) / len(found) if found else own
            order[at].sort(key=lambda key: (middle[key], str(key)))


def _boxes(
    order: Sequence[Sequence[_Key]], sizes: Mapping[str, tuple[float, float]], loops: set[str]
) -> dict[_Key, Box]:
    def width(key: _Key) -> float:
        if not isinstance(key, str):
            return _PASS
        return sizes[key][0] + (LOOP if key in loops else 0.0)

    widths = [sum(map(width, row)) + _GAP_X * (len(row) - 1) for row in order]
    boxes: dict[_Key, Box] = {}
    y = 20.0
    for row, row_width in zip(order, widths, strict=True):
        x = 24.0 + (max(widths) - row_width) / 2
        height = max((sizes[key][1] for key in row if isinstance(key, str)), default=0.0)
        for key in row:
            size = sizes[key] if isinstance(key, str) else (_PASS, height)
            boxes[key] = Box(x, y, *size)
            x += width(key) + _GAP_X
        y += height + _GAP_Y
    return boxes


def _lines(
    chains: Mapping[tuple[str, str], Sequence[_Key]], boxes: Mapping[_Key, Box]
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return each edge's points in its own direction; edges of a box meet it side by side."""
    leaving: dict[_Key, list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    entering: dict[_Key, list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    for edge, chain in chains.items():
        leaving[chain[0]].append((boxes[chain[1]].middle, edge))
        entering[chain[-1]].append((boxes[chain[-2]].middle, edge))
    lines = {}
    for edge, chain in chains.items():
        first, last = boxes[chain[0]], boxes[chain[-1]]
        points = [(_port(first, leaving[chain[0]], edge), first.y + first.height)]
        for key in chain[1:-1]:
            box = boxes[key]
            points += [(box.middle, box.y), (box.middle, box.y + box.height)]
        points.append((_port(last, entering[chain[-1]], edge), last.y))
        lines[edge] = points if chain[0] == edge[0] else points[::-1]
    return lines


def _port(box: Box, met: list[tuple[float, tuple[str, str]]], edge: tuple[str, str]) -> float:
    place = [one for _, one in sorted(met)].index(edge)
    return box.middle + box.width * _PORTS * ((place + 0.5) / len(met) - 0.5)
