"""The one Alembic chain, for SQLite and for Postgres."""
