"""Grammars of the language and of search spaces, for programs that decode under a constraint: `nasdsl grammar`."""

from nasdsl.grammar_export.ebnf import GrammarError
from nasdsl.grammar_export.language import FORMATS, language_grammar
from nasdsl.grammar_export.space import LAYOUTS, space_grammar

__all__ = ["FORMATS", "LAYOUTS", "GrammarError", "language_grammar", "space_grammar"]
