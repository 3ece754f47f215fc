"""What of the package the tests run: from the report of `make coverage` to docs/reliability.md."""
