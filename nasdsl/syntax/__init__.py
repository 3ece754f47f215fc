"""Text to syntax tree and back: lexer, parser, error recovery, printer, formatter."""
