"""Reports for people: tables on the terminal, HTML and Markdown pages."""
