"""Tests of networks for texts."""
