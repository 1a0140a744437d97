"""Decisions, one module per resource. They flush and never commit; the edge commits."""
