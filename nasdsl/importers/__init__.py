"""Importers: decoders in other formats to `.nas` text."""
