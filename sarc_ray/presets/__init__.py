"""Complete configurations that ship with the package."""
