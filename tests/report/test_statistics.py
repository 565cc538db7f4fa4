import numpy as np
import pytest
from scipy import stats

from synscale_jax.report.statistics import estimate


def test_estimate_agrees_with_scipy():
    values = [40.85, 38.07, 40.88, 39.5, 41.2]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(found, (np.mean(values), np.std(values, ddof=1), low, high, 5))


def test_interval_of_differences_is_the_paired_test():
    a, b = np.array([40.0, 41.0, 39.0]), np.array([40.5, 42.0, 39.2])
    found = estimate(b - a)
    interval = stats.ttest_rel(b, a).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (interval.low, interval.high))


def test_one_seed_has_no_interval():
    assert estimate([3.0]) == (3.0, None, None, None, 1)


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
