"""Tests of project.privacy."""
