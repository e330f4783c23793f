"""Tests of project.alerts."""
