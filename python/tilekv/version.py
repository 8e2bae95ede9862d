"""The package's version, which pyproject.toml takes from here: a literal costs an import nothing."""

VERSION = "0.1.0"
