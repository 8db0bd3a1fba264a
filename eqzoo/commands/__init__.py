"""The commands behind `eqzoo` and `tools/`: parse, call the library, print."""
