"""Slots: how each argument of an action is filled from the conversation so far.

A rule says where a value stands: in a human's or the agent's words by its shape, in the newest
answer of an action by its path, in an earlier call; or that it never changes, or is left out.
Rules of one parameter are an ordered list: the first that finds a value fills the slot. They are
chosen one by one, each by the bound on its errors over the examples that those before it left.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from madlog.processors.errors import InvalidModel
from madlog.processors.lppm._view import MISSING, View
from madlog.processors.lppm.cases import Act, Case, Point
from madlog.processors.lppm.values import canonical, is_shape, shapes
from madlog.processors.promise import upper_error

__all__ = ("FORMAT", "SCORE_ONE", "Filled", "Rule", "SlotRules")

FORMAT = "slots-1"
SCORE_ONE = 1024
_SOURCES = ("absent", "answer", "argument", "choice", "constant", "numbers", "words")
_PICKS = ("first", "last", "only")
_SCOPES = ("agent", "all", "turn")
# Fewer examples would make a rule of a coincidence.
_SUPPORT_MIN = 2
_CANDIDATES_MAX = 24
_RULES_MAX = 6
# A rule that is wrong more often than right hides better ones after it.
_ERROR_MAX = 0.7
_CHOICES_MAX = 24
# Choosing an order promises nothing; a wary bound would put what is seldom tried always last.
_ORDER_CONFIDENCE = 0.8


class Rule(NamedTuple):
    """Where a value stands, and how often it stood there.

    source    name            path             found
    words     shape           turn/all/agent   a token of that shape; numbers: as a number
    choice    values, JSON    turn/all/agent   one of the values, as it was written
    answer    action          path             a value of the action's newest answer
    argument  action          parameter        the parameter of the action's newest call
    constant  value, JSON     -                that value
    absent    -               -                the parameter is left out

    `pick` says which of several, `fresh` leaves out those that earlier calls used. Of `tried`
    examples that reached the rule and found a value, `right` found the right one.
    """

    source: str
    name: str
    path: str
    pick: str
    fresh: bool
    tried: int = 0
    right: int = 0

    @property
    def score(self) -> int:
        """How sure the rule is, by the upper bound on its errors; 1024 is certainty."""
        return int(SCORE_ONE * (1.0 - upper_error(self.tried - self.right, self.tried)))

    def __str__(self) -> str:
        which = f"{self.pick} {'unused ' if self.fresh else ''}"
        return {
            "words": f"{which}{self.name} in words ({self.path})",
            "numbers": f"{which}number in words ({self.path})",
            "choice": f"{which}of {self.name} in words ({self.path})",
            "answer": f"{which}{self.path} of {self.name}'s answer",
            "argument": f"{self.path} of the last {self.name}",
            "constant": f"always {self.name}",
            "absent": "left out",
        }[self.source]


class Filled(NamedTuple):
    """The arguments of an action, None if a slot stays open, with the rules that filled them."""

    arguments: dict[str, Any] | None
    score: int
    rules: tuple[str, ...]


class _Example(NamedTuple):
    view: View
    value: Any
    text: str


@dataclass(frozen=True, eq=False)
class SlotRules:
    """The rules of each action's parameters, in the order in which they are tried."""

    rules: Mapping[str, Mapping[str, tuple[Rule, ...]]]

    @classmethod
    def learn(cls, cases: Iterable[Case]) -> "SlotRules":
        """Learn from every call in the conversations."""
        return cls.of_points(
            (View(point.past), point)
            for case in cases
            for point in case.points()
            if point.act.action is not None
        )

    @classmethod
    def of_points(cls, points: Iterable[tuple[View, Point]]) -> "SlotRules":
        """Learn from decisions that were read already."""
        calls: dict[str, list[tuple[View, Mapping[str, Any]]]] = defaultdict(list)
        for view, point in points:
            if point.act.action is not None and point.act.arguments is not None:
                calls[point.act.action].append((view, point.act.arguments))
        found: dict[str, dict[str, tuple[Rule, ...]]] = {}
        for action in sorted(calls):
            names = sorted({name for _, arguments in calls[action] for name in arguments})
            found[action] = {
                name: _learnt(
                    action,
                    name,
                    [
                        _Example(view, given.get(name, MISSING), _text(given.get(name, MISSING)))
                        for view, given in calls[action]
                    ],
                )
                for name in names
            }
        return cls(found)

    def fill(self, action: str, view: View) -> Filled:
        """Fill every slot of an action from a conversation that was read already, or none."""
        slots = self.rules.get(action)
        if slots is None:
            return Filled(None, 0, ())
        arguments: dict[str, Any] = {}
        score, used = SCORE_ONE, []
        for name, rules in slots.items():
            for rule in rules:
                value, _ = _found(rule, view, action, name)
                if value is not MISSING or rule.source == "absent":
                    break
            else:
                return Filled(None, 0, ())
            if rule.source != "absent":
                arguments[name] = value
            score = min(score, rule.score)
            used.append(f"{name} {rule.source} {rule.path} {rule.pick} {rule.fresh}")
        return Filled(arguments, score, tuple(used))

    def filled(self, action: str, past: Sequence[Act]) -> Filled:
        """Fill every slot of an action from a conversation so far, or none."""
        return self.fill(action, View(past))

    def to_document(self) -> dict[str, Any]:
        """Return the rules as an object that JSON can hold."""
        rules = {
            action: {name: [list(rule) for rule in found] for name, found in slots.items()}
            for action, slots in self.rules.items()
        }
        return {"format": FORMAT, "rules": rules}

    @classmethod
    def from_document(cls, document: Any) -> "SlotRules":
        """Check rules from a file; raises InvalidModel naming the slot."""
        if not isinstance(document, dict) or document.keys() != {"format", "rules"}:
            raise InvalidModel("slot rules must have exactly format, rules")
        if document["format"] != FORMAT:
            raise InvalidModel(f"the slots' format is {document['format']!r}, not {FORMAT!r}")
        found: dict[str, dict[str, tuple[Rule, ...]]] = {}
        for action, slots in sorted(_object(document["rules"], "rules").items()):
            found[action] = {}
            for name, rules in sorted(_object(slots, f"rules.{action}").items()):
                where = f"rules.{action}.{name}"
                if not isinstance(rules, list):
                    raise InvalidModel(f"{where} must be a list of rules")
                found[action][name] = tuple(_read(rule, where) for rule in rules)
        return cls(found)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidModel(f"{where} must be an object")
    return value


_TYPES: Final = (str, str, str, str, bool, int, int)


def _read(value: Any, where: str) -> Rule:
    if not isinstance(value, list) or tuple(map(type, value)) != _TYPES:
        raise InvalidModel(f"{where}: a rule is [source, name, path, pick, fresh, tried, right]")
    rule = Rule(*value)
    if rule.source not in _SOURCES or rule.pick not in _PICKS:
        raise InvalidModel(f"{where}: there is no rule {rule.source!r} that picks {rule.pick!r}")
    if rule.source in ("words", "numbers", "choice") and rule.path not in _SCOPES:
        raise InvalidModel(f"{where}: words are {', '.join(_SCOPES)}, not {rule.path!r}")
    if not 0 <= rule.right <= rule.tried or not rule.tried:
        raise InvalidModel(f"{where}: {rule.right} right of {rule.tried} cannot be")
    if rule.source in ("words", "numbers") and not is_shape(rule.name):
        raise InvalidModel(f"{where}: {rule.name!r} is no shape that a token can have")
    if rule.source in ("constant", "choice"):
        View.checked(rule.name, where, many=rule.source == "choice")
    return rule


def _text(value: Any) -> str:
    return "" if value is MISSING else canonical(value)


def _found(rule: Rule, view: View, action: str, name: str) -> tuple[Any, str]:
    """Return the value that a rule finds and its canonical JSON, MISSING if it finds none."""
    key = (rule.source, rule.name, rule.path, rule.pick, rule.fresh, action, name)
    found = view.found.get(key)
    if found is None:
        value = _looked_up(rule, view, action, name)
        found = view.found[key] = value, _text(value)
    return found


def _looked_up(rule: Rule, view: View, action: str, name: str) -> Any:
    if rule.source == "constant":
        return view.constant(rule.name)
    if rule.source == "argument":
        return view.arguments.get(rule.name, {}).get(rule.path, MISSING)
    if rule.source == "answer":
        found = view.answered(rule.name, rule.path)
    elif rule.source == "absent":
        return MISSING
    elif rule.source == "choice":
        found = view.choices(rule.name, rule.path)
    else:
        found = view.shaped(rule.name, rule.path)
        if rule.source == "numbers":
            found = [int(one) for one in found]
    if rule.fresh and found:
        used = view.used(action, name)
        found = [one for one in found if canonical(one) not in used]
    if not found:
        return MISSING
    if rule.pick == "only":
        first = canonical(found[0])
        return found[0] if all(canonical(one) == first for one in found[1:]) else MISSING
    return found[0 if rule.pick == "first" else -1]


def _learnt(action: str, name: str, examples: Sequence[_Example]) -> tuple[Rule, ...]:
    """Choose the rules of one parameter."""
    counts: Counter[Rule] = Counter()
    values = Counter(example.text for example in examples if example.value is not MISSING)
    choices = _choices(examples)
    for example in examples:
        for rule in _candidates(example, choices, values):
            found, text = _found(rule, example.view, action, name)
            if rule.source == "absent" or (found is not MISSING and text == example.text):
                counts[rule] += 1
    best = sorted((-count, rule) for rule, count in counts.items() if count >= _SUPPORT_MIN)
    tried: dict[Rule, list[bool | None]] = {}
    for _, rule in best[:_CANDIDATES_MAX]:
        tried[rule] = [_judged(rule, example, action, name) for example in examples]
    return _covered(tried, len(examples))


def _judged(rule: Rule, example: _Example, action: str, name: str) -> bool | None:
    """Return whether a rule finds the example's value, None if it finds none."""
    found, text = _found(rule, example.view, action, name)
    if found is MISSING and rule.source != "absent":
        return None
    return text == example.text


def _covered(tried: Mapping[Rule, Sequence[bool | None]], count: int) -> tuple[Rule, ...]:
    """Take rule after rule, each the surest on what the ones before it left."""
    left = set(range(count))
    chosen: list[Rule] = []
    open_rules = dict(tried)
    while left and open_rules and len(chosen) < _RULES_MAX:
        ranked = []
        for rule, judged in open_rules.items():
            reached = [judged[at] for at in left if judged[at] is not None]
            right = sum(map(bool, reached))
            if right >= _SUPPORT_MIN:
                bound = upper_error(len(reached) - right, len(reached), _ORDER_CONFIDENCE)
                ranked.append((bound, -right, rule, len(reached)))
        if not ranked or min(ranked)[0] > _ERROR_MAX:
            break
        _, right, rule, reached_count = min(ranked)
        chosen.append(rule._replace(tried=reached_count, right=-right))
        left -= {at for at in left if open_rules[rule][at] is not None}
        del open_rules[rule]
    return tuple(chosen)


def _choices(examples: Sequence[_Example]) -> str | None:
    """Return the values that a parameter is chosen from, if they are few and come again."""
    texts = Counter(one.value for one in examples if isinstance(one.value, str) and one.value)
    # What holds a digit is an id or a date: known by its shape, and new in the next conversation.
    few = [
        value
        for value, count in texts.items()
        if count >= _SUPPORT_MIN and not any(map(str.isdigit, value))
    ]
    return canonical(sorted(few)) if 2 <= len(few) <= _CHOICES_MAX else None


def _candidates(
    example: _Example, choices: str | None, values: Mapping[str, int]
) -> Iterator[Rule]:
    """Go through the rules that could find an example's value."""
    if example.value is MISSING:
        yield Rule("absent", "", "", "first", False)
        return
    view, value, text = example
    if values[text] >= _SUPPORT_MIN:
        yield Rule("constant", text, "", "first", False)
    for action, given in view.arguments.items():
        for parameter, one in given.items():
            if canonical(one) == text:
                yield Rule("argument", action, parameter, "first", False)
    for action, path in view.places(text):
        yield from _picks("answer", action, path)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return
    source = "words" if isinstance(value, str) else "numbers"
    for scope in _SCOPES:
        if str(value) in view.tokens(scope):
            for shape in shapes(str(value)):
                if source == "words" or shape == r"\d+":
                    yield from _picks(source, shape, scope)
        if choices is not None:
            yield from _picks("choice", choices, scope)


def _picks(source: str, name: str, path: str) -> Iterator[Rule]:
    for pick in _PICKS:
        for fresh in (False, True):
            yield Rule(source, name, path, pick, fresh)
