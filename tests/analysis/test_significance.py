"""Tests and intervals for paired runs: scipy's results, worked examples, refusals."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from synscale_jax.analysis.significance import (
    Interval,
    bootstrap_interval,
    corrected_t_test,
    difference_interval,
    friedman,
    holm,
    prediction_interval,
    sign_flip_test,
    verdict,
    wilcoxon,
)

# Whole hundredths, so that ties are ties in any order of summation.
hundredths = st.integers(-300, 300).map(lambda value: value / 100)


@hypothesis.given(st.lists(hundredths, min_size=1, max_size=7))
@hypothesis.settings(deadline=None, max_examples=50)
def test_sign_flips_are_all_of_them(differences):
    whole = [round(100 * value) for value in differences]
    flips = [
        abs(sum(sign * value for sign, value in zip(signs, whole, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(whole))
    ]
    want = np.mean([flip >= abs(sum(whole)) for flip in flips])
    assert sign_flip_test(differences) == pytest.approx(want)


def test_sign_flip_is_scipys_exact_permutation_test():
    differences = np.random.default_rng(0).normal(0.3, 1, 10)
    want = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_test(differences) == pytest.approx(want)


def test_sign_flip_extremes():
    assert sign_flip_test(np.full(10, 0.3)) == 2 / 2**10
    assert sign_flip_test(np.linspace(0.1, 1, 20)) == 2 / 2**20
    assert sign_flip_test([0.0, 0.0, 0.0]) == 1
    assert sign_flip_test([0.1, 0.2, -0.3]) == 1


def test_holm_worked_example_and_false_discovery():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@hypothesis.settings(deadline=None, max_examples=50)
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = list(holm({str(i): p for i, p in enumerate(p_values)}).values())
    for p, after in zip(p_values, adjusted, strict=True):
        assert p <= after <= min(1, len(p_values) * p) + 1e-12
    assert np.all(np.diff(np.array(adjusted)[np.argsort(p_values, kind="stable")]) >= 0)


def runs(seeds, images, effect, spread=2.0, seed=0):
    """Correctness of two methods: hard and easy images, and seeds with an effect of their own."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(1.5, spread, images)
    luck = rng.normal(0, 0.2, (seeds, 1))
    return [
        rng.random((seeds, images)) < 1 / (1 + np.exp(-(ease + luck + shift)))
        for shift in (effect, 0.0)
    ]


def test_bootstrap_without_seed_effects_is_the_normal_interval_over_images():
    row = np.random.default_rng(0).random(2000) < 0.2
    mean, low, high = bootstrap_interval(np.stack([row] * 4))
    half = 1.96 * (row.var() / 2000) ** 0.5
    assert mean == row.mean()
    assert (high - mean, mean - low) == pytest.approx((half, half), rel=0.06)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_bootstrap_without_image_effects_is_about_students_interval(seeds):
    effects = stats.norm.ppf((np.arange(seeds) + 0.5) / seeds)[:, None]
    mean, low, high = bootstrap_interval(np.tile(effects, 50))
    wanted = stats.t.ppf(0.975, seeds - 1) * effects.std(ddof=1) / seeds**0.5
    assert (high - mean, mean - low) == pytest.approx((wanted, wanted), rel=0.12)
    plain = bootstrap_interval(np.tile(effects, 50), widen=False)
    assert plain.high - plain.low < 0.85 * (high - low)


def test_difference_is_that_of_errors_and_finds_an_effect():
    method, baseline = runs(5, 4000, effect=0.4)
    mean, low, high = difference_interval(method, baseline, resamples=2000)
    assert mean == pytest.approx(baseline.mean() - method.mean())
    assert low < mean < high < 0  # the method errs less


def test_pairing_by_images_narrows_the_interval():
    method, baseline = runs(5, 4000, effect=0.1, spread=8.0)  # most images are clear cases
    paired = difference_interval(method, baseline, resamples=2000)
    shuffled = method[:, np.random.default_rng(1).permutation(4000)]
    unpaired = difference_interval(shuffled, baseline, resamples=2000)
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)


def test_the_same_seed_gives_the_same_interval():
    method, baseline = runs(3, 500, effect=0.1)
    first, again, other = (
        difference_interval(method, baseline, resamples=500, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_method_against_itself_differs_by_nothing():
    method, _ = runs(3, 500, effect=0.0)
    assert difference_interval(method, method, resamples=200) == (0, 0, 0)


def test_prediction_interval_is_students():
    values = np.array([1.79, 1.63, 1.95, 1.70])
    mean, low, high = prediction_interval(values, level=0.9)
    deviation, t = values.std(ddof=1), stats.t.ppf(0.95, 3)
    assert (mean, low, high) == pytest.approx(
        (values.mean(), mean - t * deviation * 1.25**0.5, mean + t * deviation * 1.25**0.5)
    )


def test_corrected_t_by_hand():
    # ± 0.1 around 0.05, ten times each.
    differences = 0.05 + 0.1 * np.tile([1, -1], 10).reshape(2, 10)
    variance = 0.01 * 20 / 19
    t = 0.05 / np.sqrt(variance * (1 / 20 + 1 / 9))
    outcome = corrected_t_test(differences)
    assert outcome.statistic == pytest.approx(t)
    assert outcome.p_value == pytest.approx(2 * stats.t.sf(t, 19))
    assert outcome.p_value > stats.ttest_1samp(differences.ravel(), 0).pvalue


def test_where_there_is_no_test():
    for outcome in (
        corrected_t_test(np.full((1, 10), 0.1)),
        wilcoxon([0.0, 0.0]),
        friedman(np.ones((4, 3))),
    ):
        assert outcome.statistic is None and outcome.p_value is None
        assert outcome.note.startswith("no test")


def test_scipys_tests_are_passed_through():
    scores = np.random.default_rng(0).normal(size=(8, 4)) + np.arange(4)[None]
    assert friedman(scores).p_value == stats.friedmanchisquare(*scores.T).pvalue
    differences = scores[:, 1] - scores[:, 0]
    assert wilcoxon(differences).p_value == stats.wilcoxon(differences).pvalue


@pytest.mark.parametrize(
    ("low", "high", "paper", "want"),
    [
        (-0.2, -0.01, -0.09, "confirms"),
        (-0.4, -0.2, -0.09, "confirms the sign, not the size"),
        (-0.05, -0.01, -0.09, "confirms the sign, not the size"),
        (-0.1, 0.1, -0.09, "cannot tell"),
        (-0.05, 0.1, -0.09, "contradicts"),
        (0.05, 0.2, -0.09, "contradicts"),
        (0.05, 0.2, 0.1, "confirms"),
        (-0.1, 0.0, -0.09, "cannot tell"),
        (-0.1, 0.1, 0.0, "cannot tell"),
        (0.05, 0.1, 0.0, "contradicts"),
    ],
)
def test_verdicts(low, high, paper, want):
    assert verdict(Interval((low + high) / 2, low, high), paper) == want
    assert verdict(Interval(0.0, -high, -low), -paper) == want  # the sign convention is free


def test_verdicts_without_an_interval_that_counts():
    interval = Interval(-0.1, -0.2, -0.05)
    assert verdict(None, -0.1) == "cannot tell"
    assert verdict(interval, -0.1, comparable=False) == "not comparable"
    assert verdict(interval, None) == "not comparable"
    assert verdict(None, -0.1, needs="an accelerator") == "not run: needs an accelerator"


def test_rounding_of_the_printed_figure_excludes_less():
    interval = Interval(-0.05, -0.085, -0.01)
    assert verdict(interval, -0.09) == "confirms the sign, not the size"
    assert verdict(interval, -0.09, rounding=0.01) == "confirms"


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: sign_flip_test([]), "(0,)"),
        (lambda: sign_flip_test([1.0] * 21), "21 pairs"),
        (lambda: sign_flip_test([1.0, np.nan]), "nan"),
        (lambda: holm({"a": 1.5}), "p=1.5"),
        (lambda: bootstrap_interval(np.ones((1, 50))), "(1, 50)"),
        (lambda: bootstrap_interval(np.full((2, 3), np.nan)), "not finite"),
        (lambda: bootstrap_interval(np.ones((2, 3)), level=95), "level=95"),
        (lambda: bootstrap_interval(np.ones((2, 3)), resamples=10), "resamples=10"),
        (lambda: difference_interval(np.ones((2, 3), bool), np.ones((2, 4), bool)), "(2, 4)"),
        (lambda: prediction_interval([1.0]), "2 or more"),
        (lambda: corrected_t_test(np.ones(10)), "(10,)"),
        (lambda: friedman(np.ones((4, 2))), "(4, 2)"),
        (lambda: wilcoxon([np.inf]), "inf"),
        (lambda: verdict(Interval(0.0, 1.0, -1.0), 0.1), "[1.0, -1.0]"),
        (lambda: verdict(Interval(0.0, -1.0, 1.0), 0.1, rounding=-1.0), "rounding=-1.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
