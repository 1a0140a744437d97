"""The server's settings come from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MIAOD_"):
            monkeypatch.delenv(name)


def test_without_any_setting_everything_lies_in_the_data_folder() -> None:
    settings = Settings()
    assert settings.data_dir == Path("data")
    assert settings.resolved_database_url == "sqlite:///data/miaod.db"
    assert settings.import_roots == []
    assert settings.admin_key is None


def test_the_default_database_moves_with_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_DATA_DIR", "/srv/miaod")
    assert Settings().resolved_database_url == "sqlite:////srv/miaod/miaod.db"


def test_a_database_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_DATABASE_URL", "postgresql+psycopg://db/miaod")
    assert Settings().resolved_database_url == "postgresql+psycopg://db/miaod"


def test_import_roots_are_separated_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_IMPORT_ROOTS", os.pathsep.join(["/srv/a", "", "/srv/b"]))
    assert Settings().import_roots == [Path("/srv/a"), Path("/srv/b")]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compose passes `MIAOD_ADMIN_KEY=` for a variable that nobody has set.
    monkeypatch.setenv("MIAOD_ADMIN_KEY", "")
    monkeypatch.setenv("MIAOD_PORT", "")
    assert Settings().admin_key is None
    assert Settings().port == 8000


def test_origins_are_separated_by_blanks_or_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "MIAOD_CORS_ORIGINS", "https://a.example, http://localhost:8080 http://[::1]"
    )
    assert Settings().cors_origins == ["https://a.example", "http://localhost:8080", "http://[::1]"]


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.org", "a.example", "https://a.example/", "https://A.example"]
)
def test_what_is_no_exact_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("MIAOD_CORS_ORIGINS", origin)
    with pytest.raises(ValidationError, match="is no origin"):
        Settings()


def test_what_is_no_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_PORT", "80000")
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_the_settings_show_neither_the_key_nor_the_databases_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIAOD_ADMIN_KEY", "top-secret-of-ours")
    monkeypatch.setenv("MIAOD_DATABASE_URL", "postgresql+psycopg://me:hidden@db/miaod")
    shown = repr(Settings())
    assert "top-secret-of-ours" not in shown
    assert "hidden" not in shown


@pytest.mark.parametrize("content", ["", "\n", "fifteen letters\n"])
def test_an_admin_key_that_is_found_at_once_is_refused(tmp_path: Path, content: str) -> None:
    # An empty file would be the key of whoever sends `Authorization: Bearer`.
    (tmp_path / "miaod_admin_key").write_text(content)
    with pytest.raises(ValidationError, match="at least 16 are due") as refused:
        Settings(_secrets_dir=tmp_path)
    assert "fifteen" not in str(refused.value)


def test_blanks_around_an_admin_key_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIAOD_ADMIN_KEY", " sixteen letters! ")
    key = Settings().admin_key
    assert key is not None
    assert key.get_secret_value() == "sixteen letters!"


def test_a_secret_may_come_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "miaod_admin_key").write_text("drawn at random, from a file\n")
    read = Settings(_secrets_dir=tmp_path)
    assert read.admin_key is not None
    assert read.admin_key.get_secret_value() == "drawn at random, from a file"
    assert "drawn at random, from a file" not in repr(read)
