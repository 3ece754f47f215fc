"""A server of the Model Context Protocol: checks, costs, pictures and samples for language models. `nasdsl mcp`."""
