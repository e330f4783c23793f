"""Tests of the server of models of texts."""
