"""Every diagnostic, each defined once: code, meaning, a bad and a good example.

The examples are the tests of the code and its ``nasdsl explain`` page. A new diagnostic is one more `Code` in the module
of its kind:

- ``syntax``      NAS1xx: what is no text of the language
- ``names``       NAS2xx: what a word refers to
- ``types``       NAS3xx: operands, attributes, widths and levels
- ``heads``       NAS3xx: a head on the levels of a pyramid, and its predictions
- ``quantities``  NAS3xx: what `require` bounds
- ``structure``   NAS4xx: what a decoder must have; files used by files
- ``holes``       NAS5xx: decoders with holes
- ``lints``       NAS9xx: warnings
"""

from nasdsl.diagnostics.catalogue import heads, holes, lints, names, quantities, structure, syntax, types
from nasdsl.diagnostics.diagnostic import Code

_FOUND = (
    entry
    for module in (syntax, names, types, heads, quantities, structure, holes, lints)
    for entry in vars(module).values()
    if isinstance(entry, Code)
)

CODES: dict[str, Code] = {entry.code: entry for entry in sorted(_FOUND, key=lambda entry: entry.code)}
