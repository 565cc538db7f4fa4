"""The scaling rule for one weight in continuous time: where it rests and when it diverges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import integrate, optimize

Gap = Callable[[Any], Any]
"""w -> ẑ(w), elementwise."""

_FAR = 1e6  # |w| from which on a trajectory counts as diverged


class Trajectory(NamedTuple):
    """One weight over time.

    Attributes:
      weights: w at the times asked for; nan from the divergence on.
      diverged_at: when w reached infinity, in the unit of the times; None: not in that time.
    """

    weights: Any
    diverged_at: float | None


class FixedPoint(NamedTuple):
    """A weight at which the rule rests.

    Attributes:
      weight: w*.
      slope: dẑ/dw there; where it is negative the rule returns to w* ≠ 0 at rate −γ w*² · slope.
      stable: whether weights nearby come back, on both sides.
    """

    weight: float
    slope: float
    stable: bool


def divergence_time(weight: float, gap: float, *, scaling_rate: float) -> float:
    r"""When a weight under a constant gap reaches infinity: 1 / (γ ẑ w).

    .. math::
        \frac{dw}{dt} = \gamma\,\hat z\,w^2 \quad\Rightarrow\quad
        w(t) = \frac{w_0}{1 - \gamma \hat z w_0 t}

    Args:
      weight: w₀.
      gap: ẑ.
      scaling_rate: γ, above 0.

    Returns:
      Time in scaling steps; infinity where w₀ ẑ is not above 0, and w tends to 0 like 1/t.

    Examples:
      >>> from synscale_jax.analysis.fixed_points import divergence_time
      >>> print(f"{divergence_time(0.5, 0.1, scaling_rate=0.01):.0f}")
      2000
      >>> divergence_time(-0.5, 0.1, scaling_rate=0.01)
      inf
    """
    _check_rate(scaling_rate)
    speed = scaling_rate * gap * weight
    return 1 / speed if speed > 0 else float("inf")


def trajectory(
    weight: float, gap: Gap, times: Sequence[float] | ndarray, *, scaling_rate: float
) -> Trajectory:
    r"""Follow dw/dt = γ ẑ(w) w² from a weight that is not 0, through divergence if need be.

    The logarithm of the weight's size is integrated, so it never changes its sign, which the
    discrete rule can do. Beyond 1e6 it counts as infinite.

    Args:
      weight: w₀.
      gap: ẑ as a function of w.
      times: increasing, from 0 on, in scaling steps.
      scaling_rate: γ, above 0.

    Returns:
      A :class:`Trajectory`.

    Raises:
      ValueError: if w₀ is 0, where the rule rests, or counts as infinite, or the times do not
        increase from 0 on.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.fixed_points import trajectory
      >>> settles = trajectory(0.5, lambda w: 0.25 - 0.2 * w, [0, 100, 1000], scaling_rate=0.1)
      >>> settles.weights.round(3), settles.diverged_at
      (array([0.5  , 1.013, 1.25 ]), None)
      >>> diverges = trajectory(0.5, lambda w: 0.1 + 0 * w, [0, 300], scaling_rate=0.1)
      >>> print(f"{diverges.diverged_at:.2f}")
      200.00
    """
    _check_rate(scaling_rate)
    t = np.asarray(times, float)
    if not 0 < abs(weight) < _FAR:
        raise ValueError(
            f"weight={weight} cannot be followed: start from a number that is not 0 and below "
            f"{_FAR:g} in size."
        )
    if t.ndim != 1 or not len(t) or t[0] < 0 or (np.diff(t) <= 0).any():
        raise ValueError(f"times={t.tolist()} are no times: give increasing numbers from 0 on.")

    def speed(_: float, log_size: ndarray) -> ndarray:
        w = np.copysign(np.exp(log_size), weight)
        return scaling_rate * np.asarray(gap(w), float) * w

    def far(_: float, log_size: ndarray) -> float:
        return float(log_size[0]) - np.log(_FAR)

    far.terminal = True  # type: ignore[attr-defined]
    solved: Any = integrate.solve_ivp(
        speed,
        (0.0, max(float(t[-1]), np.finfo(float).tiny)),
        [np.log(abs(weight))],
        t_eval=t,
        events=far,
        method="DOP853",
        rtol=1e-9,
        atol=1e-9,
    )
    weights = np.full(len(t), np.nan)
    weights[: solved.y.shape[1]] = np.copysign(np.exp(solved.y[0]), weight)
    reached = solved.t_events[0]
    return Trajectory(weights, float(reached[0]) if len(reached) else None)


def fixed_points(
    gap: Gap, low: float, high: float, *, points: int = 2001
) -> tuple[FixedPoint, ...]:
    r"""Where the rule rests between two weights: at 0, and where the gap closes.

    At w* ≠ 0 the rule linearises to d(w − w*)/dt = γ w*² ẑ'(w*) (w − w*), so w* is stable where
    the gap falls with w. At 0 nothing is left to linearise: 0 attracts from above where ẑ < 0 and
    from below where ẑ > 0, and it is stable only where both hold.

    Args:
      gap: ẑ as a function of w, elementwise on arrays; continuous.
      low: lower end of the range.
      high: upper end.
      points: of the grid on which a change of sign is looked for.

    Returns:
      Fixed points in ascending order. Where the gap is 0 over a range, every weight rests, and
      none of them is listed.

    Raises:
      ValueError: if the range is empty.

    Examples:
      >>> from synscale_jax.analysis.fixed_points import fixed_points
      >>> for point in fixed_points(lambda w: 0.25 - 0.2 * w, -1, 3):
      ...     print(f"{point.weight:.2f}", point.stable)
      0.00 False
      1.25 True

    References:
      Tetzlaff et al., `Synaptic scaling in combination with many generic plasticity mechanisms
      stabilizes circuit connectivity <https://doi.org/10.3389/fncom.2011.00047>`_, 2011, whose
      fixed points the paper points to in section IV-A; they belong to scaling and Hebbian
      plasticity together.
    """
    if not low < high or points < 3:
        raise ValueError(
            f"[{low}, {high}] with {points} points is no range: give low < high and 3 or more."
        )
    grid = np.linspace(low, high, points)
    values = np.broadcast_to(np.asarray(gap(grid), float), grid.shape)
    nothing = 1e-9 * (high - low)
    found = [_point(gap, root) for root in _roots(gap, grid, values) if abs(root) > nothing]
    if low <= 0 <= high:
        found.append(_zero(gap, (high - low) / points))
    return tuple(sorted(found))


def _roots(gap: Gap, grid: Float[ndarray, " points"], values: Float[ndarray, " points"]) -> list:
    """Zeros at points of the grid with none beside them, and between points of opposite sign."""
    zero = values == 0
    beside = np.concatenate([[False], zero[:-1]]) | np.concatenate([zero[1:], [False]])
    roots = list(grid[zero & ~beside])
    for left in np.flatnonzero(values[:-1] * values[1:] < 0):
        solved: Any = optimize.brentq(lambda w: float(gap(w)), grid[left], grid[left + 1])
        roots.append(solved)
    return roots


def _point(gap: Gap, root: float) -> FixedPoint:
    step = 1e-6 * max(abs(root), 1e-3)
    slope = float((gap(root + step) - gap(root - step)) / (2 * step))
    return FixedPoint(float(root), slope, slope < 0)


def _zero(gap: Gap, step: float) -> FixedPoint:
    near = min(step, 1e-6)
    above, below = float(gap(near)), float(gap(-near))
    return FixedPoint(0.0, (above - below) / (2 * near), above < 0 < below)


def _check_rate(scaling_rate: float) -> None:
    if not 0 < scaling_rate < float("inf"):
        raise ValueError(f"scaling_rate={scaling_rate} scales nothing: use a number above 0.")
