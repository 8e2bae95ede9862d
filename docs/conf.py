"""Sphinx: `make docs` builds the pages and runs every example in them."""

from tilekv.version import VERSION

project = "tilekv"
author = "the tilekv developers"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tilekv"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
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
