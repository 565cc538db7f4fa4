"""What README and docs show is run, and what they name is there."""

import ast
import inspect
import json
import pathlib
import re
import tomllib

import jax
import numpy as np
import pytest

import synscale_jax as ss
from synscale_jax.training.table_settings import table_presets

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
LOOP = re.compile(r"^### (.+?)\n+<!-- loop -->\n```python\n(.*?)```", re.DOTALL | re.MULTILINE)
SHOWN = re.compile(
    r"<!-- run.*? -->\n```python\n(?P<code>.*?)```(?P<between>.*?)"
    r"<!-- output -->\n```text\n(?P<output>.*?)```",
    re.DOTALL,
)
NUMBER = re.compile(r"\d+\.\d+")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
INCLUDE = re.compile(r"```\{(?:literal)?include\} (\S+)")
FILE = re.compile(r"(?<![\w/.])(?:experiments|benchmarks|tests|docs)/[\w/.-]*\w")


@pytest.fixture
def strict_jax():
    """Examples run as they would for their reader, not as strictly as our own code."""


def text_of(path):
    return path.read_text(encoding="utf-8")


def loops():
    """Heading -> code, of the README's complete training loops."""
    return {heading.strip("`"): code for heading, code in LOOP.findall(text_of(README))}


def with_losses_kept(code):
    """The code, noting each ``loss`` that its last loop at top level computes."""
    tree = ast.parse(code)
    last = [node for node in tree.body if isinstance(node, ast.For)][-1]
    last.body += ast.parse("losses.append(float(loss))").body
    return compile(ast.fix_missing_locations(tree), "README.md", "exec")


def gaps_in(namespace):
    """Layer -> mean |ẑ|, wherever the loop keeps its optimizer's state."""
    states = [namespace.get("state"), getattr(namespace.get("optimizer"), "opt_state", None)]
    leaves, _ = jax.tree_util.tree_flatten_with_path(states)
    names = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves
    ]
    return {
        name.split("mean_gap/")[1].removesuffix("/value"): float(leaf)
        for name, leaf in names
        if "mean_gap/" in name
    }


def test_readme_has_the_three_loops():
    assert list(loops()) == ["Plain optax", "flax.linen", "flax.nnx"]


@pytest.mark.parametrize("name", loops())
def test_loop_of_the_readme_trains_and_scales(name, capsys):
    namespace = {"losses": []}
    exec(with_losses_kept(loops()[name]), namespace)
    losses, gaps = namespace["losses"], gaps_in(namespace)
    assert len(losses) == 20 and np.isfinite(losses).all()
    assert losses[-1] < 0.95 * losses[0]
    assert losses == sorted(losses, reverse=True)  # the whole set in every step: no noise
    assert len(gaps) == 1  # the output layer of the two with a table is left out
    assert all(0 < gap < 10 for gap in gaps.values()), gaps


def shown():
    """Page name -> matches of code with its output, in order."""
    found = {page.name: list(SHOWN.finditer(text_of(page))) for page in PAGES}
    return {name: matches for name, matches in found.items() if matches}


def agrees(printed, shown):
    """Equal text, decimal numbers within 10 % and 8 of the last place: other processors round."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True)
    return all(
        abs(float(ours) - float(theirs))
        <= 0.1 * float(theirs) + 8 * 10.0 ** -len(theirs.split(".")[1])
        for ours, theirs in pairs
    )


@pytest.mark.parametrize("page", shown())
def test_page_prints_what_it_shows(page, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for match in shown()[page]:
        assert "```python" not in match["between"]
        exec(compile(match["code"], page, "exec"), namespace)
        printed = capsys.readouterr().out
        assert agrees(printed, match["output"]), printed


def test_quickstart_is_short():
    (match,) = shown()["quickstart.md"]
    assert len(match["code"].splitlines()) <= 40


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_code_is_python(page):
    for code in CODE.findall(text_of(page)):
        ast.parse(code)


@pytest.mark.parametrize(
    "page", [README, ROOT / "CHANGELOG.md", *PAGES], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {link}"


def anchors(page):
    """Heading anchors as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_included_files_are_there(page):
    for path in INCLUDE.findall(text_of(page)):
        assert (page.parent / path).is_file(), f"{page.name} includes {path}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_named_files_are_there(page):
    for path in FILE.findall(text_of(page)):
        if not path.startswith("docs/_build"):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


def command(mark):
    """The README's command below a mark."""
    return re.search(rf"<!-- {mark} -->\n```bash\n(.+?)\n```", text_of(README), re.DOTALL)[1]


@pytest.mark.parametrize("mark", ["main-job", "tests"])
def test_commands_of_the_readme_name_what_there_is(mark):
    line = command(mark)
    assert "\n" not in line
    for constraints in re.findall(r"-c (\S+)", line):
        assert (ROOT / constraints).is_file()
    assert "-e" in line.split()


def test_main_job_runs_a_script():
    (script,) = re.findall(r"python (\S+\.py)", command("main-job"))
    assert (ROOT / script).is_file()


def test_test_command_runs_pytest():
    assert "[test]" in command("tests") or ",test]" in command("tests")
    assert "-m pytest" in command("tests")


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_extras_and_presets_exist(page, monkeypatch):
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    text = text_of(page)
    for names in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(names.split(",")) <= set(project["optional-dependencies"])
    for name in re.findall(r"--extra (\w+)", text):
        assert name in project["optional-dependencies"]
    monkeypatch.syspath_prepend(ROOT / "experiments")
    known = set(__import__("cifar100_resnet").PRESETS)
    known |= set(table_presets()) | set(__import__("table5_sequences").PRESETS)
    for name in re.findall(r"--preset (\w+)", text):
        assert name in known


def test_methods_page_marks_the_defaults():
    """The values in bold are the signatures' own."""
    defaults = {
        name: repr(parameter.default).replace("'", '"')
        for function in (ss.synscaw, ss.synscal)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    text = text_of(ROOT / "docs" / "methods.md")
    bold = dict(re.findall(r"^\| `(\w+)` \| \*\*`(.+?)`\*\*", text, re.MULTILINE))
    assert set(bold) == {"target", "measured_on", "granularity", "norm_reading", "every_k"}
    assert bold == {name: defaults[name] for name in bold}
    assert f"**`{defaults['reading']}`**" in text


class TestResultsPage:
    """What docs/render_results.py makes of a results folder."""

    @pytest.fixture
    def render(self, monkeypatch):
        monkeypatch.syspath_prepend(ROOT / "docs")
        return __import__("render_results").render

    def test_table_and_figure(self, render, tmp_path):
        folder = tmp_path / "results" / "job"
        folder.mkdir(parents=True)
        (folder / "job_smoke.md").write_text(
            "# job_smoke\n\n| a |\n| --- |\n| 1 |\n\n[x](x.json)\n"
        )
        (folder / "job_smoke.png").write_bytes(b"png")
        page = render(tmp_path / "results", tmp_path / "docs")
        assert page.startswith("## job_smoke\n")
        assert "| 1 |" in page and "\nx\n" in page
        assert "![Figure of job_smoke](../results/job/job_smoke.png)" in page

    def test_figure_in_the_table_is_shown_once(self, render, tmp_path):
        folder = tmp_path / "results" / "job"
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("# Job\n\n![curves](a.png)\n")
        (folder / "a.png").write_bytes(b"png")
        page = render(tmp_path / "results", tmp_path / "docs")
        assert page.count("a.png") == 1 and "![curves](../results/job/a.png)" in page

    def test_gaps_of_result_files(self, render, tmp_path):
        for seed, last in ((0, 0.2), (1, 0.3)):
            run = tmp_path / "results" / "job" / "synscaw" / f"seed{seed}"
            run.mkdir(parents=True)
            history = [{"mean_gap": {"head": gap}} for gap in (0.5, last)]
            (run / "result.json").write_text(json.dumps({"history": history}))
        (tmp_path / "results" / "job" / "job.md").write_text("text\n")
        page = render(tmp_path / "results", tmp_path / "docs")
        assert "## Job\n" in page and "| synscaw | 2 | `head` | 0.5 | 0.2 to 0.3 |" in page

    def test_gaps_of_other_networks_are_not_pooled(self, render, tmp_path):
        cells = {"mlp": ("dense0", 0.25), "resnet": ("conv_stem", 0.102), "lost": ("dense0", None)}
        for cell, (layer, gap) in cells.items():
            run = tmp_path / "results" / "job" / cell / "synscaw" / "seed0"
            run.mkdir(parents=True)
            result = {"history": [{"mean_gap": {layer: gap}}]}
            (run / "result.json").write_text(json.dumps(result))
        (tmp_path / "results" / "job" / "job.md").write_text("text\n")
        page = render(tmp_path / "results", tmp_path / "docs")
        assert "| mlp/synscaw | 1 | `dense0` | 0.25 | 0.25 |" in page
        assert "| resnet/synscaw | 1 | `conv_stem` | 0.102 | 0.102 |" in page
        assert page.count("not finite") == 2  # the first epoch and the last of the lost run

    def test_unfinished_folders_are_named(self, render, tmp_path):
        folder = tmp_path / "results" / "half_done"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        page = render(tmp_path / "results", tmp_path / "docs")
        assert "## Half done" in page and "`results/half_done`: 1." in page

    def test_no_results_yet(self, render, tmp_path):
        assert "No experiment" in render(tmp_path / "results", tmp_path / "docs")
