"""Spaces whose decoders train in a moment: an fpn of two blocks, and a head of two layers."""

from __future__ import annotations

FPN_SPACE = """\
choice op  = conv_1x1 | skip | sep_3x3
choice agg = psum | sum

decoder small_fpn {
  input c3, c4, c5
  fpn(width=32, norm=bn) {
    repeat t in 1..2 { x[t] = ?agg(?op(?pool), ?op(?pool)) }
    output p4 = x1, p3 = x2
  }
  head(width=32, norm=gn) { conv_1x1 }
  predict fcos()
}
"""

HEAD_SPACE = """\
choice layer = conv_1x1 | sep_3x3 | skip

decoder small_head {
  input c3, c4
  fpn(width=64, norm=bn) { output p4 = conv_1x1(c4), p3 = conv_1x1(c3) }
  head(width=64, norm=gn, share=?(0..2)) { ?layer -> ?layer }
  predict fcos()
}
"""

BESIDE = """\
decoder plain {
  input c3, c4
  fpn(width=64, norm=bn) { output p4 = conv_1x1(c4), p3 = conv_1x1(c3) }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos()
}
"""
