"""Tests of explanations of texts."""
