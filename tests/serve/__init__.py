"""Tests of project.serve, with real server processes and sockets."""
