"""Features of a decision: the acts so far, facts, words, and which calls the slots could fill."""

from collections import Counter
from collections.abc import Mapping, Sequence

from madlog.processors.lppm._facts import facts
from madlog.processors.lppm._view import View
from madlog.processors.lppm.cases import Act
from madlog.processors.lppm.slots import SlotRules
from madlog.processors.lppm.text import WORD, Counts, Vocabulary
from madlog.processors.lppm.values import shapes

__all__ = ("Row", "Words", "completed", "crossed", "fillable", "row_of", "vocabulary")

Row = dict[str, float]
_HISTORY = 4
_COUNT_MAX = 5
_WORDS_MAX = 4_000
# Words said once in the conversation weigh little each: there are many, and most are of others.
_EVER = 0.3
_SAID = 3.0
_NONE = "none"
_TEXTS_MAX = 4_096


def vocabulary(counts: Counts) -> Vocabulary:
    """Keep single words alone: pairs and pieces are most of the features and tell little here."""
    whole = Vocabulary.fit_counts(counts)
    names = [name for name in whole.rarities if name.startswith(WORD) and " " not in name]
    kept = sorted(sorted(names, key=lambda name: (whole.rarities[name], name))[:_WORDS_MAX])
    return Vocabulary.of(kept, [whole.rarities[name] for name in kept], whole.unknown)


class Words:
    """The words of acts as features, each text read once while it is remembered."""

    def __init__(self, known: Vocabulary) -> None:
        self.known = known
        self._rows: dict[str, Row] = {}

    def row(self, act: Act) -> Row:
        """Return the words of an act, by weight."""
        found = self._rows.get(act.said)
        if found is None:
            if len(self._rows) >= _TEXTS_MAX:
                self._rows.clear()
            found = self._rows[act.said] = self.known.row(act.said)
        return found


def row_of(past: Sequence[Act], words: Words) -> Row:
    """Return the features of a decision that need no rules of slots."""
    row = {f"is {fact}": 1.0 for fact in facts(past)}
    names = [act.what if act.action else "human" if act.human else "said" for act in past]
    trail = ""
    for back in range(1, _HISTORY + 1):
        name = names[-back] if back <= len(names) else _NONE
        row[f"{back} {name}"] = 1.0
        trail = f"{name} < {trail}"
        row[f"trail {trail}"] = 1.0
    for name, count in Counter(names).items():
        row[f"count {name} {min(count, _COUNT_MAX)}"] = 1.0
    done = {act.what for act in past if act.action}
    row[f"done {' '.join(sorted(done)) or _NONE}"] = 1.0
    for act in past:
        if act.human:
            for name in words.row(act):
                row[f"ever {name}"] = _EVER
    said = next((act for act in reversed(past) if not act.human and not act.action), None)
    told = {} if said is None else words.row(said)
    for name, weight in told.items():
        row[f"told {name}"] = _SAID * weight
    if past and past[-1].human:
        for name, weight in words.row(past[-1]).items():
            row[f"heard {name}"] = _SAID * weight
        _add_answer(row, past[-1], told)
    return row


def _add_answer(row: Row, heard: Act, told: Row) -> None:
    """Add what the human's turn means as an answer: a yes is a yes to what the agent told."""
    for token in heard.tokens:
        if any(map(str.isdigit, token)):
            row[f"shape {shapes(token)[0]}"] = 1.0
    first = (heard.tokens or (_NONE,))[0].lower()
    row[f"first {first}"] = 1.0
    for name, weight in told.items():
        row[f"told {name} | {first}"] = weight


def completed(row: Mapping[str, float], past: Sequence[Act], view: View, slots: SlotRules) -> Row:
    """Return the features with which calls could be filled, and each crossed with the last act."""
    full = {**row, **fillable(view, slots)}
    return full | crossed(full, past)


def fillable(view: View, slots: SlotRules) -> Row:
    """Return as features which calls could be filled.

    A call that was made before, or that lacks an argument, is seldom the next.
    """
    found: Row = {}
    for action, needed in slots.rules.items():
        if not needed:
            continue  # a call without arguments could always be made
        filled = slots.fill(action, view)
        if filled.arguments is not None:
            found[f"fill {action}"] = 1.0
            found[f"fill {action} {' '.join(filled.rules)}"] = 1.0
            if view.called(action, filled.arguments):
                found[f"again {action}"] = 1.0
    return found


def crossed(row: Mapping[str, float], past: Sequence[Act]) -> Row:
    """Return features crossed with the last act."""
    last = "human" if not past or past[-1].human else past[-1].what
    return {
        f"{last} | {name}": weight
        for name, weight in row.items()
        if not name.startswith(("trail ", "count ", "ever ", "told "))
    }
