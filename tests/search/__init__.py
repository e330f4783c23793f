"""Tests of the search for good settings."""
