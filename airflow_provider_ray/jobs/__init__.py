"""The jobs of a task: what is submitted, what is remembered, and which of them an attempt continues with."""
