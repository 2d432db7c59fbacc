"""The `warpdraw` command."""
