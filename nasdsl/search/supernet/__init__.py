"""Weight-sharing networks: one training for all decoders of a space.

Modules: `spec` (settings), `widths` (which decisions are widths), `weights` (what fillings share), `training` (the network and
its scores), `evaluation` (for a search).
"""
