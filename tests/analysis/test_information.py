"""Information: sign rules of equation 25, and bounds on channels whose information is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from synscale_jax.analysis.information import (
    code_information,
    delta_information,
    exact_delta_information,
    gaussian_log_likelihood,
    label_information,
    neuron_information,
    rate_at,
    sample_bounds,
    tied_gap,
)

weights = st.floats(0.05, 4).flatmap(lambda w: st.sampled_from([w, -w]))
gaps = st.floats(0.01, 0.5).flatmap(lambda z: st.sampled_from([z, -z]))
rates = st.floats(0.01, 2)


@settings(deadline=None, max_examples=50)
@given(weights, gaps, rates, st.floats(-2, 2), st.floats(0.1, 1))
def test_equation_25_has_the_sign_of_a_free_gap(w, gap, rate, bias, drive):
    delta = delta_information(w, gap, scaling_rate=rate, bias=bias, drive=drive)
    assert np.sign(delta) == np.sign(gap)


@settings(deadline=None, max_examples=50)
@given(weights, rates)
def test_equation_25_has_the_sign_opposite_to_w_where_the_gap_is_tied(w, rate):
    assert np.sign(delta_information(w, tied_gap(w), scaling_rate=rate)) == -np.sign(w)


def test_with_a_bias_the_tied_sign_changes_elsewhere():
    assert delta_information(0.5, tied_gap(0.5, bias=-1), scaling_rate=0.1, bias=-1) > 0


@settings(deadline=None, max_examples=50)
@given(weights, gaps)
def test_exact_change_has_the_sign_of_w_times_gap(w, gap):
    delta = exact_delta_information(w, gap, scaling_rate=0.1)  # never beyond −w here
    assert np.sign(delta) == np.sign(w * gap)


def test_equation_25_sums_over_pairs():
    joint, drive = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.5, 0.9])
    whole = delta_information(1.5, 0.2, scaling_rate=1.0, bias=0.3, drive=drive, joint=joint)
    w = 1.5 + 1.5**2 * 0.2
    ratios = (1 + np.exp(-1.5 * drive - 0.3)) / (1 + np.exp(-w * drive - 0.3))
    assert whole == pytest.approx((joint * np.log2(ratios)).sum(), rel=1e-12)
    assert delta_information(1.5, 0.2, scaling_rate=1.0, drive=0.0) == 0


def test_mean_over_both_signs_rises_unless_steps_are_huge():
    """The paper concludes that the mean falls; it does so only where steps throw w beyond −w."""
    w = np.linspace(-3, 3, 241)
    means = [
        delta_information(w, tied_gap(w), scaling_rate=rate).mean() for rate in (0.01, 1.0, 4.0)
    ]
    assert means[0] > 0 and means[1] > 0 and means[2] < 0


@pytest.mark.parametrize(("w", "bias"), [(0.3, 0.0), (-2.0, 0.7), (20.0, -3.0)])
def test_information_of_the_neuron_is_the_integral(w, bias):
    def p(x):
        return special.expit(w * x + bias)

    def information(x):  # of one input, against the mean response
        return 0.5 * (special.rel_entr(p(x), mean) + special.rel_entr(1 - p(x), 1 - mean))

    mean = integrate.quad(lambda x: 0.5 * p(x), -1, 1)[0]
    nats = integrate.quad(information, -1, 1, epsabs=1e-12, limit=200)[0]
    assert neuron_information(w, bias=bias) == pytest.approx(nats / np.log(2), abs=1e-9)


def gaussian(n, units, snr, seed=0):
    """z = x + noise at a signal-to-noise ratio, scaled to variance 1; its information in bits."""
    rng = np.random.default_rng(seed)
    share = snr / (1 + snr)
    means = np.sqrt(share) * rng.normal(size=(n, units))
    deviations = np.full((n, units), np.sqrt(1 - share))
    codes = means + deviations * rng.normal(size=(n, units))
    return means, deviations, codes, units * 0.5 * np.log2(1 + snr)


@pytest.mark.parametrize(("units", "snr"), [(1, 1.0), (4, 3.0), (8, 0.5)])
def test_bounds_enclose_the_gaussian_channel(units, snr):
    means, deviations, codes, truth = gaussian(3000, units, snr)
    found = code_information(means, deviations, codes)
    noise = 4 * np.sqrt(units) / np.sqrt(3000)  # of the mean of 3000 log ratios
    assert found.lower - noise < truth < found.upper + noise
    assert found.lower <= found.upper
    assert found.upper - found.lower < 0.6
    assert found.rate == pytest.approx(truth, abs=noise)  # here the prior is the true marginal
    assert found.flags == ()


def test_a_wrong_prior_loosens_the_rate_alone():
    means, deviations, codes, truth = gaussian(2000, 2, 1.0)
    found = code_information(3 * means, 3 * deviations, 3 * codes)
    assert found.rate > truth + 3
    assert found.upper < truth + 0.3


def test_estimates_above_log_n_are_flagged():
    means, deviations, codes, truth = gaussian(200, 32, 100.0)
    found = code_information(means, deviations, codes)
    assert truth > found.ceiling == np.log2(200)
    assert found.lower <= found.ceiling
    assert [flag.split()[0] for flag in found.flags] == ["rate", "upper", "lower"]


def test_narrow_codes_do_not_cancel():
    """σ = 0.001 beside means of size 10: the exact log-likelihood, from the differences."""
    rng = np.random.default_rng(1)
    means, deviations = 10 * rng.normal(size=(50, 6)), np.full((50, 6), 1e-3)
    codes = means + deviations * rng.normal(size=(50, 6))
    rows = gaussian_log_likelihood(means, deviations, codes)(10, 20)
    z = (codes[10:20, None] - means[None]) / deviations[None]
    want = (-0.5 * z**2 - np.log(deviations) - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(rows, want, rtol=1e-9, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_chunks_and_order_do_not_matter(chunk):
    means, deviations, codes, _ = gaussian(150, 3, 2.0)
    whole = code_information(means, deviations, codes)
    order = np.random.default_rng(2).permutation(150)
    other = code_information(means[order], deviations[order], codes[order], chunk=chunk)
    np.testing.assert_allclose(other[:3], whole[:3], rtol=1e-10)


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_binary_symmetric_channel(error):
    rng = np.random.default_rng(0)
    n = 4000
    sent = rng.integers(2, size=n)
    received = sent ^ (rng.random(n) < error)
    capacity = 1 - (special.entr(error) + special.entr(1 - error)) / np.log(2)

    def rows(start, stop):
        same = received[start:stop, None] == sent[None]
        return np.where(same, np.log(1 - error), np.log(error))

    lower, upper = sample_bounds(rows, n)
    assert lower <= upper
    np.testing.assert_allclose([lower, upper], capacity, atol=0.06)
    posterior = np.where(received[:, None] == np.arange(2), 1 - error, error)
    assert label_information(np.log(posterior), sent).bits == pytest.approx(capacity, abs=0.06)


def test_label_information_is_a_bound_and_knows_no_names():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 4)), rng.integers(4, size=500)
    log_q = special.log_softmax(logits, axis=-1)
    found = label_information(log_q, labels)
    assert found.bits <= found.entropy <= 2
    assert found.bits == pytest.approx(found.entropy - found.cross_entropy)
    names = np.array([2, 0, 3, 1])  # class k is now called names[k]
    renamed = np.empty_like(log_q)
    renamed[:, names] = log_q
    assert label_information(renamed, names[labels]).bits == pytest.approx(found.bits, rel=1e-12)
    sure = np.where(np.arange(4) == labels[:, None], 0.0, -np.inf)
    assert label_information(sure, labels).bits == pytest.approx(found.entropy)


def test_rate_curve_is_read_where_it_is_needed_only():
    label, rate = [1.0, 2.0, 3.0, 2.5], [5.0, 10.0, 40.0, 60.0]
    np.testing.assert_allclose(rate_at(label, rate, [1.5, 2.5, 3.0]), [7.5, 25.0, 40.0])
    assert np.isnan(rate_at(label, rate, [0.5, 3.5])).all()


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: delta_information(1.0, 0.1, scaling_rate=1.0, joint=[0.2, 0.2]), "0.2"),
        (lambda: label_information(np.zeros((2, 3)), np.array([0, 1])), "add up to 3"),
        (lambda: label_information(np.log(np.eye(3) + 1e-9), np.array([0, 1])), "(2,)"),
        (lambda: label_information(np.log([[0.5, 0.5]]), np.array([2])), "2 to 2"),
        (lambda: code_information(np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 3))), "(3, 3)"),
        (lambda: code_information(*[np.zeros((2, 3))] * 3), "deviation of 0.0"),
        (lambda: code_information(*[np.ones((1, 3))] * 3), "examples=1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
