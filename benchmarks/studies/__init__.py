"""Questions about the whole, as a user would ask them: whole rounds and whole trainings, beside those of others."""
