"""Puts what the experiments wrote below ``results/`` into the page ``results.md``.

Every Markdown file becomes a section, with the figures beside it; what says ``<!-- results -->``
in the page is replaced. A folder without a table yet is named, so that nothing is missing unseen.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results"
MARK = "<!-- results -->"

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def render(results: pathlib.Path = RESULTS, page_folder: pathlib.Path = HERE) -> str:
    """Markdown of everything below ``results``.

    Args:
      results: the folder the experiments write to.
      page_folder: where the page lies; links are made relative to it.

    Returns:
      One section a table, in the order of the folders' names.
    """
    folders = sorted(path for path in results.glob("*") if path.is_dir())
    sections = [_folder(folder, page_folder) for folder in folders]
    if not sections:
        return "No experiment has written a result yet.\n"
    return "\n".join(sections)


def _folder(folder: pathlib.Path, page_folder: pathlib.Path) -> str:
    tables = sorted(folder.rglob("*.md"))
    if not tables:
        kept = len(list(folder.rglob("*.json")))
        return (
            f"## {_heading(folder.name)}\n\n"
            f"Not finished: there is no table yet. Runs kept in `results/{folder.name}`: {kept}.\n"
        )
    return "\n".join(_table(path, page_folder) for path in tables) + _gaps(folder)


def _table(path: pathlib.Path, page_folder: pathlib.Path) -> str:
    """One Markdown file as a section, its figures behind it."""
    text = path.read_text(encoding="utf-8").strip()
    if not text.startswith("# "):
        text = f"# {_heading(path.parent.name if path.stem == 'README' else path.stem)}\n\n{text}"
    text = re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE)
    shown = {(path.parent / link).resolve() for mark, _, link in _LINK.findall(text) if mark == "!"}
    text = _LINK.sub(lambda match: _moved(match, path.parent, page_folder), text)
    title = re.sub(r"[`#]", "", text.splitlines()[0]).strip()
    for figure in _figures(path):
        if figure.resolve() not in shown:
            text += f"\n\n![Figure of {title}]({_relative(figure, page_folder)})"
    return text + "\n"


def _figures(table: pathlib.Path) -> Iterable[pathlib.Path]:
    """The figure of the table's name, or all of the folder for a README."""
    if table.stem == "README":
        return sorted(table.parent.glob("*.png"))
    return [figure for figure in [table.with_suffix(".png")] if figure.exists()]


def _moved(match: re.Match[str], folder: pathlib.Path, page_folder: pathlib.Path) -> str:
    """A link as seen from the page; what is no figure stays as text."""
    mark, words, link = match.groups()
    if "://" in link or link.startswith("#"):
        return match.group(0)
    if mark and (folder / link).exists():
        return f"![{words}]({_relative(folder / link, page_folder)})"
    return words


def _relative(path: pathlib.Path, page_folder: pathlib.Path) -> str:
    return pathlib.PurePath(os.path.relpath(path, page_folder)).as_posix()


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _gaps(folder: pathlib.Path) -> str:
    """Mean |ẑ| by layer after the first and the last epoch, where result JSONs are kept.

    One block for the seeds of a method in a cell: others have other layers or readings.
    """
    runs: dict[str, list[list[dict[str, Any]]]] = {}
    for path in sorted(folder.rglob("result.json")):
        history = json.loads(path.read_text(encoding="utf-8")).get("history") or []
        if history and history[-1].get("mean_gap"):
            name = path.parent.parent.relative_to(folder).as_posix()
            runs.setdefault(name, []).append(history)
    if not runs:
        return ""
    rows = [
        f"| {name} | {len(histories)} | `{layer}` | {_range(histories, 0, layer)} "
        f"| {_range(histories, -1, layer)} |"
        for name, histories in runs.items()
        for layer in histories[0][-1]["mean_gap"]
    ]
    return (
        "\n**Mean abs(ẑ) by layer** under SynScaW, least to largest of the seeds:\n\n"
        "| runs | seeds | layer | after the first epoch | after the last |\n"
        "| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _range(histories: list[list[dict[str, Any]]], epoch: int, layer: str) -> str:
    lines = [history[epoch].get("mean_gap", {}) for history in histories]
    values = [line[layer] for line in lines if layer in line]
    if any(value is None for value in values):
        return "not finite"
    if not values:
        return ""
    texts = [f"{value:.3g}" for value in (min(values), max(values))]
    return " to ".join(dict.fromkeys(texts))


def setup(app: Sphinx) -> dict[str, Any]:
    """Fill the page whenever it is read, and read it at every build."""

    def fill(app: Sphinx, name: str, source: list[str]) -> None:
        if MARK in source[0]:
            source[0] = source[0].replace(MARK, render())

    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda *_: ["results"])
    return {"parallel_read_safe": True}
