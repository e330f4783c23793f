"""Tests of project.explain."""
