"""The continuous scaling rule for one weight: closed forms, rest and divergence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synscale_jax.analysis.fixed_points import divergence_time, fixed_points, trajectory

TIMES = np.linspace(0, 100, 41)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.1, 2).flatmap(lambda w: st.sampled_from([w, -w])),
    st.floats(0.05, 0.5).flatmap(lambda z: st.sampled_from([z, -z])),
)
def test_constant_gap_follows_the_closed_form(weight, gap):
    found = trajectory(weight, lambda w: gap + 0 * w, TIMES, scaling_rate=0.1)
    ends = divergence_time(weight, gap, scaling_rate=0.1)
    before = 0.99 * ends > TIMES
    want = weight / (1 - 0.1 * gap * weight * TIMES[before])
    np.testing.assert_allclose(found.weights[before], want, rtol=1e-5)
    if ends < 0.999 * TIMES[-1]:
        assert found.diverged_at == pytest.approx(ends, rel=1e-4)
        assert np.isnan(found.weights[ends * 1.001 < TIMES]).all()
    elif ends > 1.001 * TIMES[-1]:
        assert found.diverged_at is None


def test_target_that_grows_with_the_weight_diverges_like_its_cube():
    """ẑ = w/4 − x̄ w: dw/dt = γ (1/4 − x̄) w³, infinite at 1 / (2 γ (1/4 − x̄) w₀²)."""
    found = trajectory(0.5, lambda w: (0.25 - 0.1) * w, [0, 2000], scaling_rate=0.01)
    assert found.diverged_at == pytest.approx(1 / (2 * 0.01 * 0.15 * 0.25), rel=1e-6)
    fades = trajectory(0.5, lambda w: (0.25 - 0.4) * w, [0, 2000], scaling_rate=0.01)
    assert fades.weights[-1] == pytest.approx((1 / 0.25 + 2 * 0.01 * 0.15 * 2000) ** -0.5)


def test_discrete_rule_with_a_small_rate_follows():
    def gap(w):
        return 0.25 - 0.2 * w

    w, rate = 0.4, 1e-3
    for _ in range(2000):
        w += rate * gap(w) * w**2
    found = trajectory(0.4, gap, [0, 2000], scaling_rate=rate)
    assert found.weights[-1] == pytest.approx(w, rel=1e-3)


@pytest.mark.parametrize("start", [0.2, 1.0, 3.0])
def test_weights_settle_at_the_stable_fixed_point(start):
    def gap(w):
        return 0.25 - 0.2 * np.maximum(w, 0)

    rests = [point.weight for point in fixed_points(gap, -2, 4) if point.stable]
    assert rests == pytest.approx([1.25])
    end = trajectory(start, gap, [0, 5000], scaling_rate=0.1).weights[-1]
    assert end == pytest.approx(1.25, rel=1e-6)


def test_weights_near_a_fixed_point_return_at_the_rate_of_its_slope():
    def gap(w):
        return 0.25 - 0.2 * w

    point = next(p for p in fixed_points(gap, 0.5, 4))
    assert point.slope == pytest.approx(-0.2, rel=1e-6)
    off = trajectory(1.25 + 1e-4, gap, [0, 10], scaling_rate=0.1).weights - 1.25
    assert np.log(off[1] / off[0]) == pytest.approx(0.1 * 1.25**2 * point.slope * 10, rel=1e-3)


def test_zero_attracts_from_the_side_that_the_gap_points_to():
    assert not fixed_points(lambda w: 0.1 + 0 * w, -1, 1)[0].stable
    falling = fixed_points(lambda w: -w, -1, 1)  # silent below, too active above: both come back
    assert [(p.weight, p.stable) for p in falling] == [(0.0, True)]


def test_a_gap_may_be_one_number_for_all_weights():
    assert [point.weight for point in fixed_points(lambda _: 0.1, -1, 1)] == [0.0]


def test_unstable_and_stable_points_alternate():
    points = fixed_points(lambda w: (w - 1) * (w - 2) * (3 - w), 0.5, 4)
    assert [round(p.weight, 6) for p in points] == [1, 2, 3]
    assert [p.stable for p in points] == [True, False, True]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: trajectory(0.0, np.sin, [0, 1], scaling_rate=1), "weight=0.0"),
        (lambda: trajectory(-2e6, np.sin, [0, 1], scaling_rate=1), "weight=-2000000.0"),
        (lambda: trajectory(1.0, np.sin, [1, 0], scaling_rate=1), "[1.0, 0.0]"),
        (lambda: divergence_time(1.0, 1.0, scaling_rate=0), "scaling_rate=0"),
        (lambda: fixed_points(np.sin, 2, 1), "[2, 1]"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
