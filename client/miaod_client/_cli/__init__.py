"""The `miaod` command: the SDK for the shell."""
