"""What rounds of all protocols are made of: transition tables, both sides, the cohort, dealing shares."""
