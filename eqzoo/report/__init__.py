"""Reports: one self-contained page for a test run, tables that compare several."""
