"""Sphinx: `make docs` builds the pages and runs every example in them."""

import sys
from pathlib import Path

from tilekv.version import VERSION

sys.path.append(str(Path(__file__).parent))

project = "tilekv"
author = copyright = "the tilekv developers"
version = release = VERSION
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "reference",
]
html_theme = "furo"
html_title = "tilekv"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "py:obj"  # a name in a docstring, of its class or of tilekv, is a link
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_docstring_signature = False
autodoc_type_aliases = {"npt.DTypeLike": "numpy.typing.DTypeLike"}
maximum_signature_line_length = 88
# A class of ours that a signature names is in the reference.
nitpicky = True
# Beside them views, which are dict's, parameters of types, and what is told where it is handed out or taken.
untold = ("store.ItemsView", "store.ValuesView", "memoizing.R")
untold += ("kvcore.read.fragment.Fragment", "storage.streams.Readable")
nitpick_ignore = [("py:class", f"tilekv.{name}") for name in untold]
nitpick_ignore_regex = [("py:.*", r"(?!tilekv\.).*")]
napoleon_use_ivar = True  # an attribute may be a property with a docstring of its own
suppress_warnings = [
    "ref.python"
]  # it looks for such an attribute in other classes too, and finds several
doctest_global_setup = """
import os, tempfile
import numpy as np
import tilekv
_home = os.getcwd()
_folder = tempfile.TemporaryDirectory()
os.chdir(_folder.name)
"""
doctest_global_cleanup = """
os.chdir(_home)
_folder.cleanup()
"""
