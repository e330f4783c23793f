"""Tests of project.secure."""
