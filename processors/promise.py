"""The promise on errors: exact bounds on a share, and the lowest score that keeps a promise.

Bounds are Clopper and Pearson's (1934), exact for any number of examples. `threshold` is fixed
sequence testing as in Learn then Test (Angelopoulos et al., arXiv 2110.01052, section 2.3):
picking the best of many thresholds by their bounds would make the bound optimistic, while testing
them in an order that the outcomes do not decide, and stopping at the first that fails, keeps the
whole search at one level, whether or not errors rise evenly as the score falls. Several such ways
down, each at its share of the level (Bonferroni), survive an early error.

Examples of one family (repeats of a task, steps of a conversation) are alike, and so tell less than
as many that have nothing to do with each other. They count as fewer, by Kish's design effect: n /
(1 + (size - 1) * likeness), where the likeness is the intraclass correlation of what was right.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

__all__ = ("interval", "likeness", "threshold", "upper_error")

# Stops on the way down, as shares of the examples.
_STOPS = 40
# Where ways down begin, in stops. One early error ends a way that has every reason to go on, so
# there are several, which share what may go wrong between them.
_STARTS = (4, 10, 20)
_BISECTIONS = 60
_FRACTION_TERMS = 10_000
_TINY = 1e-300


def upper_error(errors: int, n: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of an error rate of which `errors` of `n` were seen.

    1.0 where nothing was seen: no examples, no promise.
    """
    _check(errors, n, confidence)
    return _upper(errors, n, 1.0 - confidence)


def interval(errors: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of an error rate of which `errors` of `n` were seen."""
    _check(errors, n, confidence)
    tail = (1.0 - confidence) / 2.0
    return 1.0 - _upper(n - errors, n, tail), _upper(errors, n, tail)


def threshold(
    scored: Sequence[tuple[int, bool]],
    max_error: float,
    confidence: float = 0.95,
    *,
    families: Sequence[int] = (),
) -> int | None:
    """Return the lowest score from which up at most `max_error` are wrong; None if there is none.

    `scored` holds the score of each validation example and whether its answer was right, and
    `families` to which family each belongs; without them each stands for itself. That the answers
    at or above the score break the promise has a probability of at most 1 - confidence, for
    examples that come as the validation examples came.
    """
    _check(0, 0, confidence)
    of = families or range(len(scored))
    ordered = [
        (score, right, family)
        for (score, right), family in sorted(
            zip(scored, of, strict=True), key=lambda one: -one[0][0]
        )
    ]
    alike = likeness(ordered) if families else 0.0
    tail = (1.0 - confidence) / len(_STARTS)
    kept = [_way_down(ordered, max_error, tail, start, alike) for start in _STARTS]
    return min((score for score in kept if score is not None), default=None)


def likeness(examples: Sequence[tuple[int, bool, int]]) -> float:
    """Return how alike (score, right, family) of one family are: 0 not at all, 1 as one.

    The intraclass correlation by analysis of variance. Only families where something was wrong
    tell of it, so what they say is weighed by their number against one that says 1.
    """
    counts: dict[int, list[int]] = {}
    for _, right, family in examples:
        there = counts.setdefault(family, [0, 0])
        there[0] += 1
        there[1] += not right
    n, k = len(examples), len(counts)
    if n == k:
        return 0.0
    if k < 2:
        return 1.0
    within = sum(wrong - wrong * wrong / size for size, wrong in counts.values()) / (n - k)
    wrong = sum(wrong for _, wrong in counts.values())
    squares = sum(wrong * wrong / size for size, wrong in counts.values())
    between = (squares - wrong * wrong / n) / (k - 1)
    size = (n - sum(size * size for size, _ in counts.values()) / n) / (k - 1)
    whole = between + (size - 1.0) * within
    found = min(1.0, max(0.0, (between - within) / whole)) if whole > 0.0 else 1.0
    erring = sum(wrong > 0 for _, wrong in counts.values())
    return (erring * found + 1.0) / (erring + 1.0)


def _way_down(
    ordered: Sequence[tuple[int, bool, int]],
    max_error: float,
    tail: float,
    start: int,
    alike: float,
) -> int | None:
    """Test stop after stop from `start` on until one fails; returns the last that passed."""
    n, squares = len(ordered), 0
    sizes: Counter[int] = Counter()
    stop, wrong, kept = max(_possible(n, max_error, tail), start * n // _STOPS), 0, None
    for place, (score, right, family) in enumerate(ordered, 1):
        wrong += not right
        squares += 2 * sizes[family] + 1
        sizes[family] += 1
        tied = place < n and ordered[place][0] == score
        if place < stop or tied:
            continue
        fewer = 1.0 + (squares / place - 1.0) * alike
        if not _within(wrong / fewer, place / fewer, max_error, tail):
            break
        kept = score
        stop = place + max(1, n // _STOPS) if place < n - n // _STOPS else n
    return kept


def _within(errors: float, n: float, max_error: float, tail: float) -> bool:
    """Tell whether the upper bound is at most `max_error`, without looking for the bound."""
    if max_error >= 1.0:
        return True
    if errors == n or max_error <= 0.0:
        return False
    if errors == 0:
        return _upper(errors, n, tail) <= max_error
    return _at_most(errors, n, max_error) <= tail


def _possible(n: int, max_error: float, tail: float) -> int:
    """Return how many examples a test needs: fewer could not pass without an error."""
    if max_error >= 1.0:
        return 1
    if max_error <= 0.0:
        return n + 1
    return math.ceil(math.log(tail) / math.log1p(-max_error))


def _check(errors: int, n: int, confidence: float) -> None:
    if not 0 <= errors <= n:
        raise ValueError(f"{errors} errors of {n} cannot be")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1")


@lru_cache(maxsize=8192)
def _upper(errors: float, n: float, tail: float) -> float:
    """Return the rate under which so few errors have the probability `tail`."""
    if errors == n:
        return 1.0
    if errors == 0:
        return -math.expm1(math.log(tail) / n)
    low, high = errors / n, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if _at_most(errors, n, middle) > tail:
            low = middle
        else:
            high = middle
    return high


def _at_most(errors: float, n: float, rate: float) -> float:
    """Return the probability of at most so many errors, for 0 <= errors < n, 0 < rate < 1.

    This is the regularised incomplete beta function, by its continued fraction (Numerical Recipes
    6.4; modified Lentz), which takes O(√n) terms where the sum takes `errors`.
    """
    a, b, x = float(n - errors), errors + 1.0, 1.0 - rate
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    front = math.exp(log_front)
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _FRACTION_TERMS):
        step = 1.0
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = 1.0 + numerator / c
            c = c if abs(c) > _TINY else _TINY
            step = c * d
            value *= step
        if abs(step - 1.0) < 1e-15:
            break
    return value
