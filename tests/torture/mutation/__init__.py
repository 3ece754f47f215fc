"""Mutants: one small change of the package's source each, which a test of it has to notice.

``make mutants`` runs them (``python -m torture.mutation`` with ``tests`` on the path); docs/reliability.md has what came of it.
"""
