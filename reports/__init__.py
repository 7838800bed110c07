"""Rows in; tables out."""
