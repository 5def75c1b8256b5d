"""The promise on errors: exact bounds on a share, and the lowest score that keeps a promise.

Bounds are Clopper and Pearson's (1934), exact for any number of examples. `threshold` is fixed
sequence testing as in Learn then Test (Angelopoulos et al., arXiv 2110.01052, section 2.3):
picking the best of many thresholds by their bounds would make the bound optimistic, while testing
them in an order that the outcomes do not decide, and stopping at the first that fails, keeps the
whole search at one level, whether or not errors rise evenly as the score falls. Several such ways
down, each at its share of the level (Bonferroni), survive an early error.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

__all__ = ("interval", "threshold", "upper_error")

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
    scored: Sequence[tuple[int, bool]], max_error: float, confidence: float = 0.95
) -> int | None:
    """Return the lowest score from which up at most `max_error` are wrong; None if there is none.

    `scored` holds the score of each validation example and whether its answer was right. That the
    answers at or above the score break the promise has a probability of at most 1 - confidence,
    for examples that come as the validation examples came.
    """
    _check(0, 0, confidence)
    ordered = sorted(scored, key=lambda one: -one[0])
    tail = (1.0 - confidence) / len(_STARTS)
    kept = [_way_down(ordered, max_error, tail, start) for start in _STARTS]
    return min((score for score in kept if score is not None), default=None)


def _way_down(
    ordered: Sequence[tuple[int, bool]], max_error: float, tail: float, start: int
) -> int | None:
    """Test stop after stop from `start` on until one fails; returns the last that passed."""
    n = len(ordered)
    stop, wrong, kept = max(_possible(n, max_error, tail), start * n // _STOPS), 0, None
    for place, (score, right) in enumerate(ordered, 1):
        wrong += not right
        tied = place < n and ordered[place][0] == score
        if place < stop or tied:
            continue
        if _upper(wrong, place, tail) > max_error:
            break
        kept = score
        stop = place + max(1, n // _STOPS) if place < n - n // _STOPS else n
    return kept


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
def _upper(errors: int, n: int, tail: float) -> float:
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


def _at_most(errors: int, n: int, rate: float) -> float:
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
