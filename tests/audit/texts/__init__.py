"""Tests of audits of models of texts."""
