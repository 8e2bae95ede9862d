"""Build kvcore/**/*.pyx as tilekv.kvcore.**; all static metadata is in pyproject.toml."""

import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = "tilekv.kvcore"
SOURCES = Path("kvcore")
DEBUG = os.environ.get("TILEKV_DEBUG") == "1"  # assertions, bounds checks, freed memory filled
TRACE = (
    os.environ.get("TILEKV_TRACE") == "1"
)  # lines for coverage; every line calls the interpreter
SANITIZE = os.environ.get("TILEKV_SANITIZE") == "1"  # AddressSanitizer, UBSan, edges for the fuzzer
TSAN = os.environ.get("TILEKV_TSAN") == "1"  # ThreadSanitizer
VARIANT = "debug" * DEBUG + "trace" * TRACE + "sanitize" * SANITIZE + "tsan" * TSAN

DIRECTIVES = {
    "language_level": 3,
    # What a method takes and gives is annotated for its readers: inspect.signature and help() show it (binding), so docstrings
    # do not repeat it (embedsignature). An operator is no function: its docstring begins with its signature, as CPython's
    # own do (clinic), where it says @cython.binding(False) and @cython.embedsignature(True). For all at once Cython 3.3 would
    # make "None" of a docstring that is not there. No annotation checks or converts: `rows: int` would take 2.5 for 2.
    "binding": True,
    "embedsignature": False,
    "embedsignature.format": "clinic",
    "annotation_typing": False,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "linetrace": TRACE,
    "warn.maybe_uninitialized": True,
    "warn.unreachable": True,
}
MACROS = [("TILEKV_DEBUG", "1")] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
if TRACE:
    MACROS += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

# -g0: the interpreter's own flags have -g, which makes a module three times as large.
COMPILE = ["-O3", "-g0", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-unused-parameter"]
LINK = []
if DEBUG:
    COMPILE += ["-O1", "-g"]
if SANITIZE:
    # A finding ends the process: nobody reads what a passing test printed.
    LINK = ["-fsanitize=address,undefined"]
    COMPILE += [*LINK, "-fno-sanitize-recover=undefined", "-fsanitize-coverage=trace-pc"]
    COMPILE += ["-O1", "-g", "-fno-omit-frame-pointer"]
if TSAN:
    LINK = ["-fsanitize=thread"]
    COMPILE += [*LINK, "-O1", "-g", "-fno-omit-frame-pointer"]
LIBRARIES = {"codec.compress": ["zstd", "lz4", "z", "bz2"]}  # by module

Options.warning_errors = True


class BuildExt(build_ext):
    """setuptools' build_ext, taught where the .pxd files of PACKAGE are.

    Cython looks for the .pxd of a.b.c at <include>/a/b/c.pxd only. kvcore/ is not at such a
    path, so its .pxd files are mirrored to one that is. copy2 keeps their times, which decide
    whether a dependent module is compiled again. Modules are compiled side by side.
    """

    def build_extensions(self):
        root = Path(self.build_temp, "cimport")
        package = root.joinpath(*PACKAGE.split("."))
        shutil.rmtree(root, ignore_errors=True)
        for pxd in SOURCES.rglob("*.pxd"):
            mirrored = package / pxd.relative_to(SOURCES)
            mirrored.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(pxd, mirrored)
        for directory in (package.parent, package, *filter(Path.is_dir, package.iterdir())):
            directory.joinpath("__init__.pxd").touch()
        self.parallel = os.cpu_count()
        translated = cythonize(
            self.extensions,
            nthreads=self.parallel,
            include_path=[str(root)],
            compiler_directives=DIRECTIVES,
            # Cython.Coverage wants the .c beside the .pyx
            build_dir=None if TRACE else self.build_temp,
            quiet=True,
        )
        # What setuptools has noted on its own objects stays: only the sources are others now.
        for extension, c in zip(self.extensions, translated, strict=True):
            extension.sources = c.sources
        super().build_extensions()


headers = [str(header) for header in sorted(SOURCES.rglob("*.h"))]
modules = {
    ".".join(pyx.relative_to(SOURCES).with_suffix("").parts): str(pyx)
    for pyx in sorted(SOURCES.rglob("*.pyx"))
}
setup(
    ext_modules=[
        Extension(
            f"{PACKAGE}.{name}",
            [pyx],
            include_dirs=[str(SOURCES)],
            depends=headers,
            define_macros=MACROS,
            extra_compile_args=COMPILE,
            extra_link_args=LINK,
            libraries=LIBRARIES.get(name, []),
        )
        for name, pyx in modules.items()
    ],
    cmdclass={"build_ext": BuildExt},
    options={"build": {"build_base": str(Path("build", VARIANT))}},
)
