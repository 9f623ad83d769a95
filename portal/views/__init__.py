"""One module a noun: parse, call one verb, render."""
