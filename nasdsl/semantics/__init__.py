"""Syntax tree to checked architecture: names, ops expanded into layers, levels and widths inferred, every mistake found."""
