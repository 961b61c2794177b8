"""What `vitbench COMMAND` can do beside training: each module has a `main(argv) -> int`."""
