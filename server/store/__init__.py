"""Rows and blobs: the only room that talks to the database and the disk. Knows no web framework."""
