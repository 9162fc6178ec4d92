"""What the job runner imports starts in no time: it runs thousands of times on compute nodes."""

import subprocess
import sys

import pytest

HEAVY = {"pydantic", "numpy", "polars", "astropy", "sqlalchemy", "networkx", "fsspec", "scipy", "lsst"}


@pytest.mark.parametrize("module", ["connections", "handles", "command", "resources"])
def test_the_job_side_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, loadmaster_pipelines.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)
    assert "yaml" not in loaded


def test_a_job_writes_and_reads_text_and_plain_values_without_any_library() -> None:
    code = (
        "import sys, tempfile, pathlib; from loadmaster_pipelines import handles; from uuid import uuid4;"
        "path = pathlib.Path(tempfile.mkdtemp()) / 'a.json';"
        "handles.OutputHandle('a', {}, uuid4(), path, 'Json', python_type='json').put({'a': 1});"
        "assert handles.InputHandle('a', {}, uuid4(), path, 'Json', python_type='json').get() == {'a': 1};"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {*HEAVY, "yaml", "pyarrow", "h5py"} & set(loaded)


def test_storage_classes_are_known_before_any_library_of_a_format_is_loaded() -> None:
    code = (
        "import sys; from loadmaster_pipelines import storage; assert storage.extension_of('ExposureF') == '.fits'; "
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)
