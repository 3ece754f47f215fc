"""Decoders written down elsewhere, as texts of the language."""
