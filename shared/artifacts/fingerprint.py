"""Computes the fingerprint of a stage's code, so that a change of what a stage computes is a decision and not an accident.

It hashes the syntax trees, without comments, docstrings and positions, of our modules that the stage's module imports, directly or through
others, at the top of a file or inside a function. A string that names a function of ours, `module:name` as in a table of kinds, counts as
an import. `jobs/fingerprints.json` lists the fingerprints; `tests/jobs/test_fingerprints.py` fails if the code has others. To say "same
output", run `python -m shared.artifacts.fingerprint --write` (`make fingerprints`); if the output differs, raise the stage's version first.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from shared.config.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "jobs" / "fingerprints.json"
PACKAGES = ("jobs", "shared")
FUNCTION = re.compile(r"[\w.]+:[\w.]+")
LIBRARIES = (
    "accelerate", "diffusers", "numpy", "optuna", "peft", "pillow", "pyarrow", "scikit-learn", "scipy", "timm", "torch", "torchvision",
    "transformers",
)  # fmt: skip


NEUTRAL = (
    "shared.config.stages", "shared.errors", "shared.log", "shared.parent_death", "shared.retries", "shared.settings", "shared.usage",
)  # fmt: skip
"""Lists the modules that cannot change what a stage computes: what the stage takes from them is in its key, or is not part of its output."""


def fingerprint(stage: str) -> str:
    """Returns the SHA-256 of the code that a stage's module imports, itself included."""
    total = hashlib.sha256()
    for name in modules_of(f"jobs.{stage}"):
        total.update(f"{name} {_code(name)[0]}\n".encode())
    return total.hexdigest()


def modules_of(module: str, without: Collection[str] = NEUTRAL) -> list[str]:
    """Returns the names of our modules that `module` imports, directly or through others, itself included, sorted.

    Modules of `without`, and what only these import, are left out.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in without:
            found.add(name)
            waiting.extend(_code(name)[1])
    return sorted(found)


def libraries() -> dict[str, str]:
    """Returns the installed versions of the libraries that compute, by distribution name."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an image has only what its stage needs
    return installed


def current() -> dict[str, dict[str, int | str]]:
    """Returns what `jobs/fingerprints.json` should contain for the present code."""
    return {stage: {"version": kind.version, "fingerprint": fingerprint(stage)} for stage, kind in STAGES.items()}


def recorded() -> dict[str, dict[str, int | str]]:
    """Returns what `jobs/fingerprints.json` contains."""
    found: dict[str, dict[str, int | str]] = json.loads(LIST.read_text())
    return found


@cache
def _code(name: str) -> tuple[str, tuple[str, ...]]:
    """Returns the digest of a module's tree, and the names of our modules that it imports."""
    path = _path(name)
    tree = _tree(path)
    imports = tuple(sorted(set(_imports(tree, name, path.name == "__init__.py"))))
    _strip_docstrings(tree)
    return hashlib.sha256(_dump(tree).encode()).hexdigest(), imports


def _imports(tree: ast.Module, name: str, package: bool) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _ours(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: len(name.split(".")) - node.level + package]
                base = ".".join([*above, base] if base else above)
            yield from _ours(base)
            for alias in node.names:  # `from shared.data import schema` names a module
                yield from _ours(f"{base}.{alias.name}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and FUNCTION.fullmatch(node.value):
            yield from _ours(node.value.partition(":")[0])


def _ours(name: str) -> Iterable[str]:
    """Yields the module and its packages that are ours."""
    parts = name.split(".")
    if parts[0] in PACKAGES:
        for length in range(1, len(parts) + 1):
            candidate = ".".join(parts[:length])
            if _path(candidate).exists():
                yield candidate


def _path(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _dump(node: object) -> str:
    """Returns a tree as text without empty fields, which `ast.dump` writes differently from one Python to the next."""
    if isinstance(node, ast.AST):
        fields = (f"{name}={_dump(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(fields)})"
    return f"[{','.join(map(_dump, node))}]" if isinstance(node, list) else repr(node)


def _strip_docstrings(tree: ast.Module) -> None:
    """Removes every string that is a statement of its own: docstrings, also those of fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_string(statement)] or [ast.Pass()]  # type: ignore[attr-defined]


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def main(arguments: list[str]) -> int:
    """Prints the list, or writes it to `jobs/fingerprints.json` with `--write`; returns the exit code.

    With `--files MODULE`, it prints the files of what the module imports, which the build of an image compiles.
    """
    if len(arguments) == 2 and arguments[0] == "--files" and _path(arguments[1]).exists():
        print("\n".join(str(_path(name)) for name in modules_of(arguments[1], without=())))
        return 0
    if arguments not in ([], ["--write"]):
        print(
            f"usage: python -m shared.artifacts.fingerprint [--write | --files MODULE], got {arguments}",
            file=sys.stderr,
        )
        return 2
    text = json.dumps(current(), indent=2) + "\n"
    if arguments:
        LIST.write_text(text)
        print(LIST)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
