"""Whether a candidate does worse than what is served: a test that may be looked at at any time.

Of each side's success rate the beta mixture of likelihood ratios (Robbins 1970) is a martingale at
the true rate, whatever decides how many decisions a side gets; so is the product of both sides'.
By Ville's inequality it exceeds 1/alpha at any time with a probability of at most alpha. The
differences p - q for which some pair of rates stays below that are a confidence sequence (Turner
and Grünwald, arXiv 2106.02693; Howard et al. 2021, arXiv 1810.08240). It depends on the four
counts alone, so the order in which verdicts come changes nothing.

That holds for independent decisions. Decisions of one conversation are alike, which makes the
evidence a little less than it seems.

How many decisions a side it takes at a level of 5 %, sides of equal size, each seen at its very
rate (`needed`). same: until a candidate that is as good is shown to be not worse by two points;
-5, -10: until one that is so many points worse is shown to be worse by more than two:

    rate    same     -5    -10
    0.80  19,260  9,030  1,190
    0.90   9,000  4,610    620
    0.95   4,360  2,600    370
    0.98   1,850  1,450    240
    1.00     560

So 500 decisions a side never show that a candidate is not two points worse, not even where nothing
fails, and few users have 9,000. Hence the plain rule of `judge`: once both sides have `maximum`
decisions and neither was shown, the estimate decides. Looked at every 50 decisions from 500 to
1,000 a side (1,000 simulated roll-outs each), a candidate passes one stage, of three, so often:

    rate    same     -2     -3     -4     -5    -10
    0.90    92 %   48 %   23 %    9 %    2 %    0 %
    0.95    97 %   50 %   19 %    4 %    0 %    0 %
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

__all__ = ("Side", "Verdict", "above", "difference", "excludes", "judge", "needed")

Verdict = Literal["advance", "back", "wait"]

# The mixture's weights, Beta(a, b): most agents succeed in most of what they do. They decide how
# narrow intervals are at which rates, never whether they hold.
_A, _B = 9.0, 1.0
_STEPS = 60
_EPSILON = 1e-12


@dataclass(frozen=True, slots=True)
class Side:
    """What became of one side's decisions: those with a verdict, and those of the audited ones."""

    successes: int = 0
    decisions: int = 0
    errors: int = 0
    audited: int = 0

    @property
    def rate(self) -> float:
        """The share that succeeded; 0 where nothing is known."""
        return self.successes / self.decisions if self.decisions else 0.0


def difference(
    success_a: int, n_a: int, success_b: int, n_b: int, alpha: float = 0.05
) -> tuple[float, float]:
    """Return the interval of a's success rate less b's, valid at all looks together.

    (-1, 1) before anything was seen; raises ValueError for counts that cannot be.
    """
    _check(success_a, n_a, alpha)
    _check(success_b, n_b, alpha)
    limit = -math.log(alpha)
    middle = (success_a / n_a if n_a else 0.5) - (success_b / n_b if n_b else 0.5)
    a, b = (success_a, n_a), (success_b, n_b)
    return -_reach(b, a, -middle, limit), _reach(a, b, middle, limit)


def above(errors: int, n: int, rate: float, alpha: float = 0.05) -> bool:
    """Tell whether an error rate is shown to lie above `rate`, at all looks together."""
    _check(errors, n, alpha)
    if n == 0 or errors <= rate * n or rate >= 1.0:
        return False
    # Errors are rare, so the weights are those of successes, the other way round.
    return _evidence(n - errors, n, 1.0 - rate) > -math.log(alpha)


def judge(
    candidate: Side,
    served: Side,
    *,
    margin: float = -0.02,
    minimum: int = 500,
    maximum: int = 1_000,
    alpha: float = 0.05,
    max_error: float = 1.0,
) -> Verdict:
    """Return what becomes of a candidate at its stage.

    Back: its audits show that it breaks the promise of `max_error`, or, from `minimum` decisions a
    side on, its success rate is shown to differ by less than `margin`. Advance: it is shown to
    differ by more. Where neither is shown by `maximum` a side, the estimate decides.
    """
    if above(candidate.errors, candidate.audited, max_error, alpha):
        return "back"
    fewest = min(candidate.decisions, served.decisions)
    if fewest < max(minimum, 1):
        return "wait"
    own, other = (candidate.successes, candidate.decisions), (served.successes, served.decisions)
    if fewest < maximum and not excludes(margin, *own, *other, alpha):
        return "wait"
    # What is excluded lies to the other side of the margin than the estimate.
    return "advance" if candidate.rate - served.rate >= margin - _EPSILON else "back"


def excludes(
    apart: float, success_a: int, n_a: int, success_b: int, n_b: int, alpha: float = 0.05
) -> bool:
    """Tell whether `difference` leaves out that a's rate is `apart` from b's, -1 < apart < 1."""
    _check(success_a, n_a, alpha)
    _check(success_b, n_b, alpha)
    return _least((success_a, n_a), (success_b, n_b), apart) >= -math.log(alpha)


def needed(rate: float, change: float, margin: float = -0.02, alpha: float = 0.05) -> int:
    """Return after how many decisions a side a change of the rate is told from the margin.

    Both sides of equal size, each seen at its very rate; a multiple of 10, at most 10 million.
    """
    low, high = 0, 1_000_000
    while high - low > 1:
        n = (low + high) // 2
        a, b = round(10 * n * (rate + change)), round(10 * n * rate)
        bounds = difference(a, 10 * n, b, 10 * n, alpha)
        told = bounds[0] > margin if change > margin else bounds[1] < margin
        low, high = (low, n) if told else (n, high)
    return 10 * high


def _check(successes: int, n: int, alpha: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} cannot be")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"a level of {alpha} is not between 0 and 1")


def _reach(a: tuple[int, int], b: tuple[int, int], middle: float, limit: float) -> float:
    """Return the largest difference of a's rate and b's that is not excluded."""
    low, high = middle, 1.0
    if _least(a, b, high) < limit:
        return high
    for _ in range(_STEPS):
        at = (low + high) / 2.0
        if _least(a, b, at) < limit:
            low = at
        else:
            high = at
    return high


def _least(a: tuple[int, int], b: tuple[int, int], apart: float) -> float:
    """Return the least evidence against any pair of rates that are so far apart.

    The evidence is convex in the pair, so its slope along b's rate has one zero at most.
    """
    low, high = max(0.0, -apart) + _EPSILON, min(1.0, 1.0 - apart) - _EPSILON
    if low >= high:
        rate = min(max(0.0, -apart), 1.0)
        return _evidence(*a, _inside(rate + apart)) + _evidence(*b, _inside(rate))
    for _ in range(_STEPS):
        rate = (low + high) / 2.0
        if _slope(*a, rate + apart) + _slope(*b, rate) < 0.0:
            low = rate
        else:
            high = rate
    rate = (low + high) / 2.0
    return _evidence(*a, _inside(rate + apart)) + _evidence(*b, _inside(rate))


def _inside(rate: float) -> float:
    return min(max(rate, _EPSILON), 1.0 - _EPSILON)


def _slope(successes: int, n: int, rate: float) -> float:
    rate = _inside(rate)
    return (n - successes) / (1.0 - rate) - successes / rate


def _evidence(successes: int, n: int, rate: float) -> float:
    """Return the logarithm of the mixture of likelihood ratios against a rate."""
    told = successes * math.log(rate) + (n - successes) * math.log1p(-rate)
    return _mixed(successes, n) - told


@lru_cache(maxsize=4096)
def _mixed(successes: int, n: int) -> float:
    """Return the logarithm of the likelihood, mixed over rates by Beta(a, b)."""
    return _log_beta(_A + successes, _B + n - successes) - _log_beta(_A, _B)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
