"""Tests of project.deploy."""
