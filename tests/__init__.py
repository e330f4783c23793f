"""Tests, a mirror of src/project."""
