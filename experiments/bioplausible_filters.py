"""What single units answer to, and which pixels a decision hangs on, for the probes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.report.plots import save
from synscale_jax.report.tables import markdown


def class_selectivity(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much each unit prefers its best class to the mean of the others.

    (m₁ − m₂) / (m₁ + m₂), with m₁ the mean answer to the class that it answers to most and m₂ that
    to the other classes: 0 for a unit that answers to all alike, 1 for one that answers to one
    class only.

    Args:
      answers: (images, units), 0 or more.
      labels: (images,).

    Returns:
      (units,); nan for units that never answer.
    """
    means = np.array([answers[labels == label].mean(0) for label in np.unique(labels)])
    best = means.max(0)
    rest = (means.sum(0) - best) / (len(means) - 1)
    total = best + rest
    return np.divide(best - rest, total, out=np.full(total.shape, np.nan), where=total > 0)


def selectivity_figure(
    layers: Mapping[str, np.ndarray], labels: np.ndarray, path: pathlib.Path
) -> str:
    """Draw how selective the units of each layer are; the table of means and silent units.

    Args:
      layers: name -> answers, (images, units).
      labels: (images,).
      path: of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    columns: dict[str, list[str]] = {
        name: [] for name in ("units", "number", "silent", "selectivity, mean", "median", "95th %")
    }
    for name, answers in layers.items():
        found = class_selectivity(answers, labels)
        heard = found[np.isfinite(found)]
        axes.hist(heard, bins=40, range=(0.0, 1.0), histtype="step", lw=1.6, label=name)
        ends = (heard.mean(), np.median(heard), np.percentile(heard, 95))
        cells = (name, str(len(found)), str(len(found) - len(heard)), *(f"{v:.3f}" for v in ends))
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    axes.set_xlabel("class selectivity (0: all classes alike, 1: one class only)")
    axes.set_ylabel("units")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
    return markdown(columns)


def saliency(scores: Callable[[Array], Array], images: np.ndarray) -> np.ndarray:
    """How much each pixel in [0, 1] moves the score that wins, as an absolute gradient.

    Args:
      scores: pixels -> (images, classes).
      images: (images, height, width, channels), uint8.

    Returns:
      (images, height, width): the largest over channels.
    """

    def winning(pixels: Array) -> Array:
        return scores(pixels).max(-1).sum()

    slope = jax.grad(winning)(jnp.asarray(images, jnp.float32) / 255)
    return np.abs(np.asarray(slope)).reshape(images.shape).max(-1)


def saliency_figure(
    networks: Mapping[str, Callable[[Array], Array]],
    images: np.ndarray,
    labels: np.ndarray,
    path: pathlib.Path,
) -> None:
    """One column a class, its first image on top, and below it each network's saliency."""
    from matplotlib.figure import Figure

    first = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
    shown = images[first]
    rows = {"image": shown / 255} | {name: saliency(f, shown) for name, f in networks.items()}
    figure = Figure(figsize=(1.1 * len(first), 1.25 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(first), squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture.squeeze(), cmap="gray" if name == "image" else "magma")
            axes.set_axis_off()
        line[0].set_title(name, fontsize=8, loc="left")
    save(figure, path)
