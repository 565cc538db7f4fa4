"""Cross-references of our own: by a name's last part, since types live in private modules."""

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

COLON = "\ue000"


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Link ``Layer`` or ``synscale_jax.scaling._layers.Layer`` to where Layer is documented."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rsplit(".", 1)[-1]
    ours = node["reftarget"].startswith("synscale_jax.") or "." not in node["reftarget"]
    named = {
        (entry.docname, entry.node_id)
        for name, entry in env.get_domain("py").objects.items()  # pyright: ignore
        if name.rsplit(".", 1)[-1] == last and entry.objtype not in ("attribute", "method")
    }
    if not ours or len(named) != 1:
        return None
    docname, anchor = named.pop()
    return make_refnode(app.builder, node["refdoc"], docname, anchor, text, node["reftarget"])


def skip_field(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> Any:
    """Leave out a NamedTuple's fields: its docstring's Attributes say more."""
    if (getattr(value, "__doc__", None) or "").startswith("Alias for field number"):
        return True
    return None


def hide_colons(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Napoleon would take what stands before a colon in ``0: there are none`` for a type."""
    if what == "attribute":
        lines[:] = [line.replace(":", COLON) for line in lines]


def show_colons(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Undo :func:`hide_colons`."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip_field)
    app.connect("autodoc-process-docstring", hide_colons, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", show_colons, priority=600)
    return {"parallel_read_safe": True}
