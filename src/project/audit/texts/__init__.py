"""Audits of models of texts."""
