"""What sweeps found: scores, intervals, comparisons, the table in the terminal and the report."""
