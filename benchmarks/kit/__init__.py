"""What the benchmarks share: processes and their cost, the systems under test, the report.

Nothing here measures helexa by itself; the scripts one folder up do.
"""
