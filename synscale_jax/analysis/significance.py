"""Tests of differences between methods that were run on the same seeds, and verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from synscale_jax.analysis._checks import check_level, finite
from synscale_jax.analysis.intervals import Interval as Interval
from synscale_jax.analysis.intervals import bootstrap_interval as bootstrap_interval
from synscale_jax.analysis.intervals import difference_interval as difference_interval
from synscale_jax.analysis.intervals import prediction_interval as prediction_interval

MOST_PAIRS = 20  # 2²⁰ sign flips are a million; more are no longer listed


class Outcome(NamedTuple):
    """What a test says.

    Attributes:
      statistic: the test's statistic; None where there is no test.
      p_value: two-sided; None where there is no test.
      note: why there is none, or empty.
    """

    statistic: float | None
    p_value: float | None
    note: str = ""


def sign_flip_test(differences: Sequence[float] | Float[ndarray, " pairs"]) -> float:
    r"""The exact paired sign-flip test of a mean difference of zero, two-sided.

    If the methods are exchangeable within each pair, all :math:`2^n` flips of the signs of the
    differences are equally likely. The p-value is the share of flips whose mean is as far from zero
    as the observed one or farther. It cannot be below :math:`2^{1 - n}`: 0.0625 for five pairs,
    0.002 for ten.

    Args:
      differences: one a pair (a seed), 1 to 20 of them.

    Returns:
      The p-value.

    Raises:
      ValueError: if there are none or more than 20, or one is not finite.

    Examples:
      >>> from synscale_jax.analysis.significance import sign_flip_test
      >>> sign_flip_test([0.3, 0.1, 0.2, 0.4, 0.2])
      0.0625

    References:
      Fisher, The Design of Experiments, 1935, section 21.
    """
    values = finite("differences", differences, 1)
    if len(values) > MOST_PAIRS:
        raise ValueError(
            f"{len(values)} pairs have 2^{len(values)} sign flips, too many to list: give at most "
            f"{MOST_PAIRS}, or use wilcoxon."
        )
    sums = values[:1]  # the first sign is held: the rest mirrors
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    # Flips with the same mean must not differ by rounding.
    tolerance = 1e-12 * np.abs(values).sum()
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - tolerance))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values of a family, which bound the chance of any false rejection.

    Args:
      p_values: hypothesis -> p-value, the whole family.

    Returns:
      Hypothesis -> adjusted p-value, in the same order.

    Raises:
      ValueError: if a value is outside [0, 1].

    Examples:
      >>> from synscale_jax.analysis.significance import holm
      >>> {name: round(p, 3) for name, p in holm({"a": 0.01, "b": 0.04, "c": 0.03}).items()}
      {'a': 0.03, 'b': 0.06, 'c': 0.06}

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} of {name!r} is no p-value: give numbers in [0, 1].")
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def corrected_t_test(differences: Float[ndarray, "repeats folds"]) -> Outcome:
    r"""The t test of repeated cross-validation with the variance of Nadeau and Bengio, two-sided.

    Folds share training examples, so their differences are not independent and the plain t test
    rejects too often. With r repeats of k folds and differences of variance s²,

    .. math:: t = \bar d \Big/ \sqrt{s^2 \Big(\frac{1}{k r} + \frac{1}{k - 1}\Big)}

    has k r − 1 degrees of freedom; 1 / (k − 1) is the size of a test fold over that of its training
    set, 1/9 for ten folds.

    Args:
      differences: of the two methods on each fold, shape ``(repeats, folds)``.

    Returns:
      An :class:`Outcome`; no test where all differences are equal.

    Raises:
      ValueError: if the shape is another, there is one fold only, or a value is not finite.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.significance import corrected_t_test
      >>> d = np.array([[0.1, 0.3, 0.2, 0.0, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2]])
      >>> print(f"{corrected_t_test(d).p_value:.3f}")
      0.004

    References:
      Nadeau and Bengio, `Inference for the Generalization Error
      <https://doi.org/10.1023/A:1024068626366>`_, 2003. Bouckaert and Frank, Evaluating the
      Replicability of Significance Tests for Comparing Learning Algorithms, 2004.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 2 or values.shape[1] < 2 or not values.size:
        raise ValueError(
            f"differences of shape {values.shape} are no repeated cross-validation: give "
            "(repeats, folds) with two or more folds."
        )
    flat, folds = finite("differences", values.ravel(), 2), values.shape[1]
    if np.ptp(flat) <= 1e-12 * np.abs(flat).max():
        return Outcome(None, None, "no test: all differences are equal")
    scale = np.sqrt(flat.var(ddof=1) * (1 / len(flat) + 1 / (folds - 1)))
    t = float(flat.mean() / scale)
    return Outcome(t, float(2 * stats.t.sf(abs(t), len(flat) - 1)))


def corrected_interval(
    differences: Float[ndarray, "repeats folds"], *, level: float = 0.95
) -> Interval:
    r"""The interval of :func:`corrected_t_test`, of no width where all differences are equal.

    Args:
      differences: of the two methods on each fold, shape ``(repeats, folds)``.
      level: chance that it holds the mean difference, where the correction is right.

    Raises:
      ValueError: for what :func:`corrected_t_test` refuses, or an impossible level.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.significance import corrected_interval
      >>> mean, low, high = corrected_interval(np.array([[0.1, 0.3, 0.2, 0.0]]))
      >>> print(f"{mean:.2f} {low:.2f} {high:.2f}")
      0.15 -0.16 0.46
    """
    check_level(level)
    corrected_t_test(differences)  # refuses what is no repeated cross-validation
    values = np.asarray(differences, np.float64)
    scale = np.sqrt(values.var(ddof=1) * (1 / values.size + 1 / (values.shape[1] - 1)))
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1) * scale)
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)


def student_t_test(first: Float[ndarray, " values"], second: Float[ndarray, " others"]) -> Outcome:
    """Student's t test of two independent samples of equal variance, two-sided, through scipy.

    Folds of one cross-validation are not independent, and those of two methods are pairs: this is
    what papers print, and :func:`corrected_t_test` what they should.

    Args:
      first: values of one method.
      second: values of the other.

    Returns:
      An :class:`Outcome`; no test where all values within each sample are equal.

    Raises:
      ValueError: if a sample has fewer than two values, or one is not finite.
    """
    ours, theirs = finite("first", first, 2), finite("second", second, 2)
    if not np.ptp(ours) and not np.ptp(theirs):
        return Outcome(None, None, "no test: no spread within the samples")
    # From moments, which does not warn where one sample alone has no spread.
    moments = [(s.mean(), s.std(ddof=1), len(s)) for s in (ours, theirs)]
    result: Any = stats.ttest_ind_from_stats(*moments[0], *moments[1])
    return Outcome(float(result.statistic), float(result.pvalue))


def friedman(scores: Float[ndarray, "blocks methods"]) -> Outcome:
    """Friedman's test that no method ranks otherwise than another, through scipy.

    Args:
      scores: one a block (a data set or a seed) and method; three methods or more.

    Returns:
      An :class:`Outcome`; no test where all methods tie in every block.

    Raises:
      ValueError: if there are fewer than three methods or two blocks, or a value is not finite.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 3:
        raise ValueError(
            f"scores of shape {values.shape} do not do for Friedman's test: give (blocks, methods) "
            "with two or more blocks and three or more methods."
        )
    finite("scores", values.ravel(), 2)
    if (values == values[:, :1]).all():
        return Outcome(None, None, "no test: all methods tie")
    result: Any = stats.friedmanchisquare(*values.T)
    return Outcome(float(result.statistic), float(result.pvalue))


def wilcoxon(differences: Sequence[float] | Float[ndarray, " pairs"]) -> Outcome:
    """Wilcoxon's signed-rank test of paired differences, two-sided, through scipy.

    Args:
      differences: one a pair; zeros are left out.

    Returns:
      An :class:`Outcome`; no test where all differences are zero.

    Raises:
      ValueError: if there are none, or one is not finite.
    """
    values = finite("differences", differences, 1)
    if not values.any():
        return Outcome(None, None, "no test: all differences are zero")
    result: Any = stats.wilcoxon(values)
    return Outcome(float(result.statistic), float(result.pvalue))


def verdict(
    interval: Interval | None,
    paper: float | None,
    *,
    rounding: float = 0.0,
    comparable: bool = True,
    needs: str | None = None,
) -> str:
    """What our interval of a difference says about the paper's, in one of six fixed phrases.

    In this order, the first that holds:

    - ``not run: needs …`` if ``needs`` says what is missing;
    - ``not comparable`` if length, model or data differ, or the paper prints no figure;
    - ``cannot tell`` if there is no interval, or it holds both 0 and the paper's difference;
    - ``confirms`` if it excludes 0 on the paper's side and holds the paper's difference;
    - ``confirms the sign, not the size`` if it excludes 0 on the paper's side and excludes the
      paper's difference, too;
    - ``contradicts`` if it excludes the paper's difference otherwise: it holds 0, or it lies on the
      other side of 0.

    A difference of 0 in the paper has no side, and can be contradicted only. The paper's difference
    is that of single runs, with a spread of its own that it does not print: ``contradicts`` says
    that our mean is not there, not that the paper's run was not.

    Args:
      interval: of the difference to the baseline, in the unit of ``paper``.
      paper: the paper's difference, with the same sign convention, or None.
      rounding: how far the printed difference can be off by rounding: 0.01 for that of two figures
        with two decimals.
      comparable: whether the runs are of the paper's length, model and data.
      needs: what a run would need, e.g. ``"an accelerator"``, if there was none.

    Raises:
      ValueError: if the interval's ends are reversed or no numbers, or ``rounding`` is negative.

    Examples:
      >>> from synscale_jax.analysis.significance import Interval, verdict
      >>> verdict(Interval(-0.1, -0.2, -0.01), paper=-0.09)
      'confirms'
      >>> verdict(Interval(-0.3, -0.4, -0.2), paper=-0.09)
      'confirms the sign, not the size'
      >>> verdict(Interval(0.0, -0.1, 0.1), paper=-0.09)
      'cannot tell'
      >>> verdict(Interval(0.1, 0.05, 0.2), paper=-0.09)
      'contradicts'
      >>> verdict(None, paper=-0.09, needs="an accelerator")
      'not run: needs an accelerator'
    """
    if not 0 <= rounding < float("inf"):
        raise ValueError(f"rounding={rounding} is no tolerance: use 0 or more, e.g. 0.01.")
    if needs:
        return f"not run: needs {needs}"
    if not comparable or paper is None:
        return "not comparable"
    if interval is None:
        return "cannot tell"
    _, low, high = interval
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(f"[{low}, {high}] is no interval: give a finite low end and a high end.")
    same_side = (low > 0 and paper > 0) or (high < 0 and paper < 0)
    excluded = not low <= paper + rounding or not paper - rounding <= high
    if same_side:
        return "confirms the sign, not the size" if excluded else "confirms"
    return "contradicts" if excluded else "cannot tell"
