"""Plugins for pytest-benchmark, in this suite or in a project of your own."""
