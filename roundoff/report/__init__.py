"""Rows to findings, figures and a PDF."""
