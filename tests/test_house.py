"""The house's own rules: who imports whom, what is public, where an import may hide in a function."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import loadmaster

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "loadmaster_registry": ROOT / "registry" / "loadmaster_registry",
    "loadmaster_pipelines": ROOT / "pipelines" / "loadmaster_pipelines",
    "loadmaster_planner": ROOT / "planner" / "loadmaster_planner",
    "loadmaster_staging": ROOT / "staging" / "loadmaster_staging",
    "loadmaster_executors": ROOT / "executors" / "loadmaster_executors",
    "loadmaster": ROOT / "loadmaster",
}
BELOW = {
    "loadmaster_registry": set(),
    "loadmaster_pipelines": {"loadmaster_registry"},
    "loadmaster_planner": {"loadmaster_registry", "loadmaster_pipelines"},
    "loadmaster_staging": {"loadmaster_registry", "loadmaster_pipelines"},
    "loadmaster_executors": set(PACKAGES) - {"loadmaster_executors", "loadmaster"},
    "loadmaster": set(PACKAGES) - {"loadmaster"},
}
LATE_IMPORTS = {
    "registry/loadmaster_registry/table_file.py": "most tables are CSV, and no reader of one waits for Astropy",
    "pipelines/loadmaster_pipelines/formats/hdf5.py": "h5py is optional, and not missed before a file needs it",
    "pipelines/loadmaster_pipelines/storage.py": "a job is told the types of its files, and need not read the list",
    "pipelines/loadmaster_pipelines/handles.py": "a command-line task never reads through Python, and pays nothing",
    "staging/loadmaster_staging/batch.py": "a job with local files does not pay for fsspec, threads and web clients",
    "staging/loadmaster_staging/inputs.py": "a job with a few small files does not pay for threads",
    "staging/loadmaster_staging/location.py": "a job with local files does not pay for fsspec",
}
PUBLIC = [
    *("ConfigError", "Conflict", "Error", "InitInput", "InitOutput", "Input", "Inputs", "NoWork", "NotFound"),
    *(
        "Output",
        "Outputs",
        "PipelineError",
        "Plan",
        "PlanError",
        "Prerequisite",
        "QueryError",
        "RegistryError",
    ),
    *("Repo", "Resources", "Run", "RunError", "StageError", "Task", "TaskConfig", "astropy_table"),
]


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def late_imports(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (sub for sub in ast.walk(node) if isinstance(sub, ast.Import | ast.ImportFrom))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_only_downward(package: str) -> None:
    upward = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(ast.parse(path.read_text()))
        if (root := name.split(".")[0]) in PACKAGES and root not in BELOW[package] | {package}
    }
    assert not upward


def test_an_import_inside_a_function_stands_in_the_list_with_its_reason() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in modules(package)
        if any(late_imports(ast.parse(path.read_text())))
    }
    assert found == set(LATE_IMPORTS)


def test_the_top_level_holds_the_parts_and_nothing_generic() -> None:
    generic = {"utils", "common", "base", "misc", "helpers"}
    assert not {path for package in PACKAGES for path in modules(package) if path.stem in generic}


def test_no_module_is_longer_than_700_lines() -> None:
    assert not [p for package in PACKAGES for p in modules(package) if p.read_text().count("\n") > 700]


def test_the_public_names_are_these() -> None:
    assert loadmaster.__all__ == PUBLIC
    assert all(hasattr(loadmaster, name) for name in loadmaster.__all__)
