"""Regression check: record numerical results and compare them between commits."""
