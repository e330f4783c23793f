"""Tests of project.search."""
