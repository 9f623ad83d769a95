"""One module a noun: all human input is checked here."""
