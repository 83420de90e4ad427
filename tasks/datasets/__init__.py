"""Data sets as row tables, and the built-in faces."""
