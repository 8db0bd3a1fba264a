"""Vision encoders whose features a generator is aligned with."""
