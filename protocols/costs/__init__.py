"""What rounds cost, on paper: counts of what each role does, times what one of it costs on a machine."""
