"""Tests of exported models of texts."""
