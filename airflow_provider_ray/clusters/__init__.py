"""Which clusters there are, and which of them an argument names."""
