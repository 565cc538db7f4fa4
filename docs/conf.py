"""The site's configuration. Building it needs no network.

python -m sphinx -W --keep-going -n docs docs/_build/html        # the pages
python -m sphinx -W -b doctest docs docs/_build/doctest          # every example in them
"""

import doctest
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext"), str(HERE)]

import synscale_jax  # noqa: E402

project = "synscale_jax"
author = "The synscale_jax authors"
copyright = author
release = version = synscale_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "api_coverage",
    "own_names",
    "render_presets",
    "render_results",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name.rsplit(".", 1)[-1]
    for name in ("optax.ScalarOrSchedule", "ArrayLike", "DTypeLike", "Activation")
}
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

doctest_default_flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS  # as pytest has them
trim_doctest_flags = True

# Names of other packages are shown as text: their inventories would have to be fetched.
nitpick_ignore_regex = [
    (r"py:.*", r"(jax|jaxlib|flax|optax|numpy|np|nn|nnx|tyro|tqdm|matplotlib|orbax|ocp)(\..*)?"),
    (r"py:.*", r"(jaxtyping|collections|pathlib|argparse|contextlib|types|os)\..*"),
    # Type aliases and what Sphinx makes of subscripts; references to functions are checked.
    (r"py:.*", r"typing\..*"),
    (r"py:class", r"'[\w ]+'|[A-Z]\w*|ndarray|(list|tuple|dict)\[.*|.*Annotated\[.*"),
]

html_theme = "furo"
html_title = "synscale_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
    },
    "dark_css_variables": {
        "color-brand-primary": "#56B4E9",
        "color-brand-content": "#56B4E9",
    },
}
