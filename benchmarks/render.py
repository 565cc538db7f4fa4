"""Renders the tables of benchmarks/README.md from benchmarks/results/*.json.

python benchmarks/render.py           # rewrites what stands between the markers
python benchmarks/render.py --check   # exits 1 if that would change anything
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
README = HERE / "README.md"

# Why a row falls short, by a part of its label; what is not here has not been looked into.
CAUSES: dict[str, str] = {
    "norm restored": (
        "its sums over the weights need the optimizer's update in memory, on idle steps, too; "
        "without them it is fused with the weights' addition"
    ),
    "sampled": "a forward pass of 100 noise examples and their random numbers",
    "measured on noise": "a forward pass of 100 noise examples and their random numbers",
    "iris,": (
        "its matrix products would take 0.04 of PyTorch's time at the matrix rate; products this "
        "small run at half of it, and the last batch of an epoch is padded from 22 rows to 100"
    ),
    "breast_cancer,": (
        "660 units wide, it is no small network: its matrix products alone are 0.18 of PyTorch's "
        "time at the matrix rate"
    ),
    "thyroid,": (
        "products of 100 × 630 by 630 × 630 run at 77 % of the rate (on one core), Adam on 1.2 "
        "million weights takes a quarter of what they would at the whole rate"
    ),
    "ours (canonical)": "XLA's convolutions on the CPU, above all those of weight gradients",
}


def verdict(row: dict[str, Any]) -> str:
    """Whether the target is reached, surely or not, and if not why."""
    target = row["target"]
    if target is None:
        return "—"
    value = row.get("ratio", row.get("value"))
    low, high = row.get("interval", (value, value))
    if value > target:
        cause = next((why for part, why in CAUSES.items() if part in row["label"]), None)
        unsure = " (the interval holds the target)" if low <= target else ""
        return f"**short**{unsure}: {cause or 'cause not yet found'}"
    return "reached" if high <= target else "reached (the interval holds the target)"


def ratio_line(row: dict[str, Any]) -> str:
    """One comparison."""
    low, high = row["interval"]
    target = "" if row["target"] is None else f"≤ {row['target']:g}"
    sides = " / ".join(f"{side['ms']:.4g}" for side in row["peers"])
    threads = " / ".join(str(side.get("threads", "—")) for side in row["peers"])
    cells = [
        row["label"],
        target,
        f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]",
        sides,
        threads,
        str(row["pairs"]),
        f"{row['load'][0]:.1f} → {row['load'][1]:.1f}",
        verdict(row),
    ]
    return f"| {' | '.join(cells)} |"


def value_line(row: dict[str, Any]) -> str:
    """One figure with a limit."""
    cells = [
        row["label"],
        f"≤ {row['target']:g} {row['unit']}",
        f"{row['value']:.2f} {row['unit']}",
        row["detail"],
        str(row["times"]),
        verdict(row),
    ]
    return f"| {' | '.join(cells)} |"


def ladder(rows: list[dict[str, Any]]) -> list[str]:
    """One line a layer and direction, one column a side."""
    sides = list(rows[0]["milliseconds"])
    lines = [
        f"| layer | | {' | '.join(f'{side}, ms' for side in sides)} |",
        "| --- " * (2 + len(sides)) + "|",
    ]
    for row in rows:
        times = " | ".join(f"{row['milliseconds'][side]:.3g}" for side in sides)
        lines.append(f"| {row['label']} | {row['result']} | {times} |")
    return [*lines, ""]


def shares(rows: list[dict[str, Any]]) -> list[str]:
    """One line a kind of work, two columns a network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    found = {(row["network"], row["label"]): row for row in rows}
    lines = [
        f"| | {' | '.join(f'{network}, ms | share' for network in networks)} |",
        "| --- " * (1 + 2 * len(networks)) + "|",
    ]
    for label in dict.fromkeys(row["label"] for row in rows):
        cells = []
        for network in networks:
            row = found.get((network, label))
            cells += [f"{row['profile_ms']:.1f}", f"{row['share']:.0%}"] if row else ["", ""]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return [*lines, ""]


def render(result: dict[str, Any]) -> str:
    """A result's tables, with where they come from."""
    if "milliseconds" in result["rows"][0]:
        lines = ladder(result["rows"])
    elif "share" in result["rows"][0]:
        lines = shares(result["rows"])
    else:
        lines = comparisons(result)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines.append(
        f"`{result['command']}`, {result['date'][:10]}, commit {result['commit']}; "
        f"{result['cpu']}, {result['cores']} cores; Python {result['python']}, {versions}."
    )
    return "\n".join(lines)


def comparisons(result: dict[str, Any]) -> list[str]:
    """Ratios and figures with a limit."""
    ratios = [row for row in result["rows"] if "ratio" in row]
    values = [row for row in result["rows"] if "value" in row]
    lines = []
    if ratios:
        lines += [
            "| comparison | target | ratio [95 %] | ms | threads | pairs | load | verdict |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *map(ratio_line, ratios),
            "",
        ]
    if values:
        lines += [
            "| figure | target | measured | | runs | verdict |",
            "| --- | --- | --- | --- | --- | --- |",
            *map(value_line, values),
            "",
        ]
    for tried in result.get("tried", []):
        found = ", ".join(f"{name} {ms:.1f} ms" for name, ms in tried.items())
        lines += [f"PyTorch's variants: {found}.", ""]
    return lines


def main() -> None:
    """Rewrite the tables."""
    parser = argparse.ArgumentParser(description="Renders the tables of benchmarks/README.md.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    options = parser.parse_args()
    text = before = README.read_text()
    for name in re.findall(r"<!-- table: (\w+) -->", text):
        path = HERE / "results" / f"{name}.json"
        table = render(json.loads(path.read_text())) if path.exists() else "Not yet measured."
        begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        block = f"{begin}\n{table}\n{end}"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
    if options.check:
        sys.exit(int(text != before))
    README.write_text(text)


if __name__ == "__main__":
    main()
