"""What the package promises to those who import it."""

import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import miaod_client
import pydantic
from miaod_client import _errors, _types
from miaod_client._config import API_KEY_VARIABLE, DEFAULT_URL, URL_VARIABLE
from miaod_client._resources.base import Resource

# Seen by nobody but the package itself.
INTERNAL = {"Record", "RunningStage"}


def test_every_name_in_all_exists_and_stands_once() -> None:
    names = miaod_client.__all__
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(miaod_client, name), name


def test_all_names_everything_that_the_package_imports() -> None:
    imported = {
        name
        for name, value in vars(miaod_client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported == set(miaod_client.__all__)


def test_every_answer_type_is_exported() -> None:
    answers = {
        name
        for name, value in vars(_types).items()
        if inspect.isclass(value)
        and issubclass(value, pydantic.BaseModel)
        and value.__module__ == _types.__name__
    }
    assert answers - INTERNAL <= set(miaod_client.__all__)


def test_every_error_is_exported_and_in_the_tree() -> None:
    errors = {
        name: value
        for name, value in vars(_errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert set(errors) <= set(miaod_client.__all__)
    assert all(issubclass(error, miaod_client.MiaodError) for error in errors.values())


def test_every_module_is_private() -> None:
    modules = [module.name for module in pkgutil.iter_modules(miaod_client.__path__)]
    assert modules
    assert all(name.startswith("_") for name in modules)


def test_importing_the_package_loads_no_command_line() -> None:
    code = "import sys, miaod_client; sys.exit('typer' in sys.modules or 'rich' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(miaod_client.__path__[0]).parent)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_the_readme_names_every_method_error_and_variable() -> None:
    readme = (Path(miaod_client.__path__[0]).parent / "README.md").read_text(encoding="utf-8")
    with miaod_client.Client() as client:
        resources = {
            name: value for name, value in vars(client).items() if isinstance(value, Resource)
        }
    assert len(resources) == 13
    for name, resource in resources.items():
        row = next(line for line in readme.splitlines() if line.startswith("| `") and name in line)
        methods = [method for method in dir(resource) if not method.startswith("_")]
        assert all(re.search(rf"\b{method}\b", row) for method in methods), (name, methods)
    for name, error in vars(_errors).items():
        if inspect.isclass(error) and issubclass(error, miaod_client.ApiError) and error.status:
            assert f"`{name}` {error.status}" in readme
    assert URL_VARIABLE in readme
    assert API_KEY_VARIABLE in readme
    assert DEFAULT_URL in readme
