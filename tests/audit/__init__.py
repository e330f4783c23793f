"""Tests of project.audit."""
