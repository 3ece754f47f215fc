"""Torture of the package: numbered cases of a few subjects, run for hours, which can be stopped, continued and repeated.

``make torture`` runs them (``python -m torture`` with ``tests`` on the path); docs/reliability.md has what came of it.
"""
