"""`tools/benchmark.py`: benchmarks of speed and memory, as ratios within one run; one file for each subject."""
