"""Tests of the datamodules."""
