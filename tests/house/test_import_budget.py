"""What loads when: importing is quick, and long-lived roles carry nothing that only training needs."""

import json

import pytest
from tests.house.repository import run_python

HEAVY = {
    "alembic", "deltalake", "fastapi", "granian", "lightgbm", "mlflow", "numpy", "onnxruntime", "pandas",
    "pandera", "polars", "pyarrow", "pydantic", "rich", "scipy", "sqlalchemy", "typer",
}  # fmt: skip

ONLY_FOR_TRAINING = {"lightgbm", "mlflow", "onnx", "pandas", "pandera", "scipy.stats", "sklearn"}

ROLES = {
    "server": "trimtab.server.http",
    "gateway": "trimtab.serving.gateway",
    "controller": "trimtab.loop.controller",
}


def loaded_by(module: str) -> set[str]:
    """The names of all modules that importing this one loads."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(run_python(code).stdout.splitlines()[-1]))


def test_import_trimtab_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("trimtab")


def test_import_trimtab_takes_under_100_ms_of_processor_time() -> None:
    # The least of several runs, in processor time: a busy machine can only make it look slower.
    code = "import time; start = time.process_time(); import trimtab; print(time.process_time() - start)"
    assert min(float(run_python(code).stdout) for _ in range(5)) < 0.1


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_without_what_only_training_needs(role: str) -> None:
    assert not ONLY_FOR_TRAINING & loaded_by(ROLES[role])


def test_the_help_page_of_the_command_line_loads_no_store_and_no_frames() -> None:
    assert not {"sqlalchemy", "polars", "numpy", "fastapi"} & loaded_by("trimtab.cli.main")
