"""The commands behind `tools/`: parse, call the library, print."""
