"""Tests of project.report."""
